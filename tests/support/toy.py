"""A closed-form chain: small enough to differentiate by hand, shaped like a diffusion model's.

x_{i+1} = a_i x_i + b_i tanh(W x_i + c_i) + eta s_i eps, in D dimensions, trainable W [D, D]. There is no
network to load, so estimators can be checked against many thousands of samples in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.engine.chain import Level, State, Transition, per_row


@dataclass(frozen=True)
class ToyCondition:
    """One number per prompt, added inside the tanh."""

    shift: Tensor

    def select(self, rows: Tensor) -> ToyCondition:
        """The given rows."""
        return ToyCondition(self.shift[rows])


class ToyChain:
    """The chain above. `noise` scales s_i, the std injected at eta = 1; `multistep` adds a memory of
    tanh(·)."""

    evaluations_per_step = 1
    device = torch.device("cpu")

    def __init__(
        self, steps: int = 6, dim: int = 2, *, seed: int = 0, noise: float = 0.4, multistep: float = 0.0
    ):
        generator = torch.Generator().manual_seed(seed)
        self.steps = steps
        self.latent_shape = (dim,)
        self.multistep = multistep
        self.a = torch.linspace(0.75, 0.95, steps)
        self.b = torch.linspace(0.7, 0.4, steps)
        self.c = 0.3 * torch.randn(steps, dim, generator=generator)
        self.s = torch.full((steps,), noise)
        self.weight = torch.nn.Parameter(
            0.7 * torch.eye(dim) + 0.2 * torch.randn(dim, dim, generator=generator)
        )
        self._untrained = torch.nn.Parameter(self.weight.detach().clone(), requires_grad=False)
        self._delta: Tensor | None = None

    def condition(self, prompts: Sequence[str]) -> ToyCondition:
        """A prompt's shift is its length modulo 5, over 10."""
        return ToyCondition(torch.tensor([(len(p) % 5) / 10 for p in prompts]))

    def prior(self, noise: Tensor) -> State:
        """x_0 of the chain is the noise itself."""
        if not self.multistep:
            return State(noise)
        return State(noise, torch.zeros_like(noise), torch.zeros(len(noise), dtype=torch.bool))

    def transition(
        self,
        state: State,
        i: int,
        cond: ToyCondition,
        eta: Tensor,
        x_path_only: bool = False,
        detach_input: bool = False,
    ) -> Transition:
        """One step of the formula in the module's docstring."""
        output = self._network(state.x.detach() if detach_input else state.x, i, cond)
        if x_path_only:
            output = output.detach()
        mean = self.a[i] * state.x + self.b[i] * output
        if state.history is not None and state.valid is not None:
            difference = self.multistep * (output - state.history)
            mean = mean + torch.where(state.valid[:, None], difference, torch.zeros_like(difference))
        return Transition(mean, per_row(eta, state.x) * self.s[i], output if self.multistep else None)

    def predict_x0(
        self, state: State, i: int, cond: ToyCondition, x_path_only: bool = False, detach_input: bool = False
    ) -> Tensor:
        """The chain's linear part alone, with this step's tanh once: crude, but a function of x, i and W."""
        output = self._network(state.x.detach() if detach_input else state.x, i, cond)
        if x_path_only:
            output = output.detach()
        return self.a[i:].prod() * state.x + self.b[i] * output

    def level(self, i: int) -> Level:
        """Noise from 1 down to 1 / T in even steps, and signal the rest."""
        return Level(i / self.steps, 1 - i / self.steps)

    def noised(self, x0: Tensor, noise: Tensor, i: int) -> State:
        """x_0 noised to step i's level."""
        return self.prior(self.level(i).of(x0, noise))

    def decode(self, x: Tensor, frames: Tensor | None = None) -> Tensor:
        """Media are the latents: [B, D], which have no frames."""
        return x

    def parameters(self) -> list[torch.nn.Parameter]:
        """W."""
        return [self.weight]

    @contextmanager
    def perturbed(self, delta: Tensor) -> Iterator[None]:
        """Row b runs with W + delta[b]; delta [B, D²]."""
        self._delta = delta.reshape(-1, *self.weight.shape)
        try:
            yield
        finally:
            self._delta = None

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Every row runs with the W that the chain was made with."""
        trained, self.weight = self.weight, self._untrained
        try:
            yield
        finally:
            self.weight = trained

    def _network(self, x: Tensor, i: int, cond: ToyCondition) -> Tensor:
        product = x @ self.weight.T
        if self._delta is not None:
            product = product + torch.einsum("bij,bj->bi", self._delta, x)
        return torch.tanh(product + self.c[i] + cond.shift[:, None])
