"""A chain of one's own: x_{i+1} = M_i x_i + b_i v + eta s_i eps, linear and Gaussian, its gradient known.

M_i = a_i I + b_i W with trainable W [D, D] and v [D], x_T ~ N(0, I). Mean and covariance of x_i have a closed
form, so a quadratic reward's expectation and its gradient are exact: estimators are compared with the truth,
not with another estimate. `LinearGaussianChain` is all that the engine asks of a model
(bench/engine/chain.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor

from bench.engine.chain import Level, State, Transition, per_row
from bench.engine.reward import Reward


class NoCondition:
    """The chain ignores prompts."""

    def select(self, rows: Tensor) -> NoCondition:
        """Nothing to select from."""
        return self


class LinearGaussianChain:
    """The chain above, with a memoryless solver and media = latents [B, D]. `noise` is s_i at every step."""

    evaluations_per_step = 1
    device = torch.device("cpu")

    def __init__(self, steps: int = 5, dim: int = 1, *, seed: int = 0, noise: float = 0.5):
        generator = torch.Generator().manual_seed(seed)
        self.steps = steps
        self.latent_shape = (dim,)
        self.a = torch.linspace(0.7, 0.9, steps)
        self.b = torch.linspace(0.5, 0.3, steps)
        self.s = torch.full((steps,), noise)
        self.weight = torch.nn.Parameter(0.3 * torch.randn(dim, dim, generator=generator))
        self.drift = torch.nn.Parameter(0.3 * torch.randn(dim, generator=generator))
        self._untrained = [
            torch.nn.Parameter(p.detach().clone(), requires_grad=False) for p in self.parameters()
        ]
        self._delta: Tensor | None = None

    def condition(self, prompts: Sequence[str]) -> NoCondition:
        """There is nothing to embed."""
        return NoCondition()

    def prior(self, noise: Tensor) -> State:
        """x_T is the noise itself."""
        return State(noise)

    def transition(
        self,
        state: State,
        i: int,
        cond: NoCondition,
        eta: Tensor,
        x_path_only: bool = False,
        detach_input: bool = False,
    ) -> Transition:
        """One step of the formula in the module's docstring; W x + v is the "network"."""
        x = state.x
        seen = x.detach() if detach_input else x
        output = seen @ self.weight.T + self.drift
        if self._delta is not None:
            weight, drift = unflatten(self._delta, x.shape[1])
            output = output + (weight @ seen[:, :, None])[:, :, 0] + drift
        if x_path_only:
            output = output.detach()
        return Transition(self.a[i] * x + self.b[i] * output, per_row(eta, x) * self.s[i])

    def predict_x0(
        self, state: State, i: int, cond: NoCondition, x_path_only: bool = False, detach_input: bool = False
    ) -> Tensor:
        """E[x_0 | x_i]: the chain's end if no more noise came, as it is linear."""
        quiet = torch.zeros(len(state.x))
        for k in range(i, self.steps):
            state = State(self.transition(state, k, cond, quiet, x_path_only, detach_input).mean)
        return state.x

    def level(self, i: int) -> Level:
        """Noise from 1 down to 1 / T in even steps, and signal the rest."""
        return Level(i / self.steps, 1 - i / self.steps)

    def noised(self, x0: Tensor, noise: Tensor, i: int) -> State:
        """x_0 noised to step i's level."""
        return self.prior(self.level(i).of(x0, noise))

    def decode(self, x: Tensor, frames: Tensor | None = None) -> Tensor:
        """Media are the latents."""
        return x

    def parameters(self) -> list[torch.nn.Parameter]:
        """W and v."""
        return [self.weight, self.drift]

    @contextmanager
    def perturbed(self, delta: Tensor) -> Iterator[None]:
        """Row b runs with (W, v) + delta[b]; delta [B, D² + D]."""
        self._delta = delta
        try:
            yield
        finally:
            self._delta = None

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Every row runs with the (W, v) that the chain was made with."""
        trained = self.parameters()
        self.weight, self.drift = self._untrained
        try:
            yield
        finally:
            self.weight, self.drift = trained


class QuadraticReward(Reward):
    """-|x - goal|² / 2."""

    differentiable: ClassVar[bool] = True
    scale: ClassVar[str] = "a number ≤ 0"

    def __init__(self, goal: Sequence[float]) -> None:
        """goal: [D]."""
        self.goal = torch.tensor(goal)

    def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
        """[B] of media [B, D]."""
        return -(media - self.goal).square().sum(1) / 2

    def expected(self, mean: Tensor, covariance: Tensor) -> Tensor:
        """E[R] [...] of any x with these moments, Gaussian or not: mean [..., D], covariance [..., D, D]."""
        return -((mean - self.goal).square().sum(-1) + trace(covariance)) / 2


def trace(matrix: Tensor) -> Tensor:
    """Over the last two dimensions."""
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)


def unflatten(theta: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """(W [..., D, D], v [..., D]) of flat parameters [..., D² + D]."""
    return theta[..., : dim * dim].unflatten(-1, (dim, dim)), theta[..., dim * dim :]


def parameters_of(chain: LinearGaussianChain) -> Tensor:
    """θ, flat [d], float64, detached."""
    return torch.cat([p.detach().double().flatten() for p in chain.parameters()])


def exact_objective(
    chain: LinearGaussianChain,
    reward: QuadraticReward,
    theta: Tensor,
    eta: Sequence[float],
    scale: Sequence[float] | None = None,
) -> Tensor:
    """E[R(x_0)] where step i runs with parameters theta[..., i, :] + scale[i] z_i, differentiable in theta.

    theta: [..., T, d], result [...]. eta: noise scale per step. scale: s per step, as of ZO steps with
    independent z_i ~ N(0, I) (None: nowhere); b_i (δW x + δv) adds b_i² s² (E|x|² + 1) I to the covariance.
    """
    dim = chain.latent_shape[0]
    identity = torch.eye(dim, dtype=torch.float64)
    mean, covariance = torch.zeros(dim, dtype=torch.float64), identity
    for i in range(chain.steps):
        (weight, drift), b = unflatten(theta[..., i, :], dim), float(chain.b[i])
        matrix = float(chain.a[i]) * identity + b * weight
        spread = torch.tensor((eta[i] * float(chain.s[i])) ** 2)
        if scale is not None:
            spread = spread + (b * scale[i]) ** 2 * (trace(covariance) + mean.square().sum(-1) + 1)
        mean = (matrix @ mean[..., None])[..., 0] + b * drift
        covariance = matrix @ covariance @ matrix.mT + spread[..., None, None] * identity
    return reward.expected(mean, covariance)


def exact_contributions(
    chain: LinearGaussianChain,
    reward: QuadraticReward,
    eta: Sequence[float],
    scale: Sequence[float] | None = None,
) -> Tensor:
    """Each step's term of the gradient of E[R] (RLR paper, Prop. 6.1), [T, d]: that of its copy of θ."""
    theta = parameters_of(chain).expand(chain.steps, -1).clone().requires_grad_()
    return torch.autograd.grad(exact_objective(chain, reward, theta, eta, scale), theta)[0]


def exact_gradient(
    chain: LinearGaussianChain,
    reward: QuadraticReward,
    eta: Sequence[float],
    scale: Sequence[float] | None = None,
) -> Tensor:
    """The gradient of E[R], flat [d]: the sum of the contributions."""
    return exact_contributions(chain, reward, eta, scale).sum(0)
