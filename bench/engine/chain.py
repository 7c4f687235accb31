"""What the engine asks of a model: a chain of T differentiable transitions.

Steps count in sampling order: i = 0 is the noisiest, i = T-1 produces x_0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

from bench.base.errors import BenchError
from bench.base.lazy import torch


@dataclass(frozen=True)
class State:
    """Where a chain stands: x [B, …], and a multistep solver's memory [B, …] with the rows where it is valid
    [B]."""

    x: torch.Tensor
    history: torch.Tensor | None = None
    valid: torch.Tensor | None = None

    def select(self, rows: slice | torch.Tensor) -> State:
        """The given rows of the batch (`at`)."""
        if self.history is None or self.valid is None:
            return State(self.x[rows])
        return State(self.x[rows], self.history[rows], self.valid[rows])

    def reset(self, rows: Sequence[bool]) -> State:
        """The same state with the memory forgotten where rows [B] is true."""
        if self.history is None or self.valid is None or not any(rows):
            return self
        if all(rows):
            return State(self.x, self.history, torch.zeros_like(self.valid))
        return State(self.x, self.history, self.valid & ~sent(rows, self.valid.device))


@dataclass(frozen=True)
class Transition:
    """x_{i+1} ~ N(mean, std²): mean [B, …], std broadcastable to it (0: deterministic); the solver's next
    memory."""

    mean: torch.Tensor
    std: torch.Tensor
    history: torch.Tensor | None = None

    def detached(self) -> Transition:
        """The same without a graph."""
        history = None if self.history is None else self.history.detach()
        return Transition(self.mean.detach(), self.std.detach(), history)

    def next_state(self, x: torch.Tensor) -> State:
        """The state that follows once x [B, …] has been drawn; its memory is valid in every row."""
        valid = None if self.history is None else torch.ones(len(x), dtype=torch.bool, device=x.device)
        return State(x, self.history, valid)


@dataclass(frozen=True)
class Level:
    """A noise level of the forward process, x = signal · x_0 + noise · ε with ε standard normal."""

    signal: float
    noise: float

    def of(self, x0: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """x [B, …] from x_0 and ε [B, …]."""
        return self.signal * x0 + self.noise * noise


def at(rows: Sequence[int], device: torch.device) -> slice | torch.Tensor:
    """What picks rows of a tensor on a device: a slice if they follow each other, else their numbers there.

    A list would be copied to the device at every use, and the copy waited for.
    """
    if not rows:
        return slice(0, 0)
    following = all(after == before + 1 for before, after in pairwise(rows))
    return slice(rows[0], rows[-1] + 1) if following else sent(rows, device)


def sent(values: Sequence[float], device: torch.device) -> torch.Tensor:
    """Numbers of the host on a device, without waiting until a GPU has done what it was given before."""
    here = torch.tensor(values)
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here.to(device)


def per_row(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """[B] → [B, 1, …] so that it multiplies `like` [B, …] row by row."""
    return value.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


def gaussian_log_prob(x: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """log N(x; mean, std²) summed over each row's dimensions: [B, …] → [B]. std > 0, broadcastable to x."""
    logs = -((x - mean) ** 2) / (2 * std**2) - std.log() - 0.5 * math.log(2 * math.pi)
    return logs.expand_as(x).flatten(1).sum(1)


class Condition(Protocol):
    """What the network is conditioned on, opaque to the engine."""

    def select(self, rows: torch.Tensor) -> Condition:
        """The given rows of the batch."""
        ...


class Chain(Protocol):
    """A reverse process with trainable parameters. The engine knows nothing else about a model."""

    @property
    def steps(self) -> int:
        """T, the number of steps."""
        ...

    @property
    def evaluations_per_step(self) -> int:
        """Network evaluations that one transition of one sample costs (2 with classifier-free guidance)."""
        ...

    @property
    def device(self) -> torch.device:
        """The device that latents are on."""
        ...

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one sample's x."""
        ...

    def condition(self, prompts: Sequence[str]) -> Condition:
        """Embed prompts (cached). No gradient."""
        ...

    def prior(self, noise: torch.Tensor) -> State:
        """The starting state from standard normal noise [B, *latent_shape]."""
        ...

    def transition(
        self,
        state: State,
        i: int,
        cond: Any,
        eta: torch.Tensor,
        x_path_only: bool = False,
        detach_input: bool = False,
    ) -> Transition:
        """Step i from `state`; eta [B] scales the noise. Differentiable in x, memory and parameters.

        Where eta is 0, so is std; where it is not, std is 0 in all rows or in none. Nothing here should ask a
        device for a number: a GPU is waited for then, at every step.

        `x_path_only` detaches the network's output and keeps the solver's linear dependence on x;
        `detach_input` keeps that and the parameters, and detaches what the network is given.
        """
        ...

    def predict_x0(
        self, state: State, i: int, cond: Any, x_path_only: bool = False, detach_input: bool = False
    ) -> torch.Tensor:
        """One-step prediction of x_0 from the state at step i, differentiable; with both flags as above."""
        ...

    def level(self, i: int) -> Level:
        """The noise level that step i starts from, in the forward process that the model was trained on."""
        ...

    def noised(self, x0: torch.Tensor, noise: torch.Tensor, i: int) -> State:
        """Where step i would start from if x_0 [B, …] were noised to its level with `noise`; no memory."""
        ...

    def decode(self, x: torch.Tensor, frames: torch.Tensor | None = None) -> torch.Tensor:
        """Media in [0, 1] from x_0, differentiable: images [B, 3, H, W] or videos [B, F, 3, H, W].

        frames [B, k]: only those of each video, [B, k, 3, H, W]. Asked for only where plans have `frames`.
        """
        ...

    def parameters(self) -> list[torch.nn.Parameter]:
        """The trainable parameters, in a fixed order (the LoRA)."""
        ...

    def perturbed(self, delta: torch.Tensor) -> AbstractContextManager[None]:
        """Within the context, row b runs with parameters + delta[b]; delta [B, d], flat in `parameters`
        order."""
        ...

    def reference(self) -> AbstractContextManager[None]:
        """Within the context, every row runs as the model that training starts from: without the adapter.

        Asked for by a KL term, adjoint matching, `nft` and `awm` alone, through `reference` below.
        """
        ...


def reference(chain: Chain) -> AbstractContextManager[None]:
    """The chain's context of that name. Raises BenchError if it has none, as a plugin's may."""
    if not hasattr(chain, "reference"):
        raise BenchError(
            f"{type(chain).__name__} has no method reference(), a context in which it runs without its "
            "adapter: train.kl, adjoint matching, nft and awm need one (bench.engine.Chain)"
        )
    return chain.reference()


@runtime_checkable
class MakesVideos(Protocol):
    """A chain whose media are videos."""

    @property
    def frames(self) -> int:
        """F, how many a video has."""
        ...
