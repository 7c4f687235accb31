"""Gradient ascent on the linear-Gaussian chain, watched through the exact objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from bench.engine.batch import Batch
from bench.engine.engine import Engine
from examples.linear_gaussian import LinearGaussianChain, QuadraticReward, exact_objective, parameters_of
from examples.measure import Number, Update, ascent


class Objective:
    """J(θ) = E[R] - decay |θ - θ_0|² / 2: noise (eta = 1) at every step, weight decay towards the start θ_0.

    The decay keeps the best θ from being a limit, and gives truncated BP's bias something to shift.
    """

    def __init__(self, chain: LinearGaussianChain, reward: QuadraticReward, decay: float) -> None:
        self.chain, self.reward, self.decay = chain, reward, decay
        self.start = parameters_of(chain)

    def value(self, theta: Tensor) -> Tensor:
        """J at theta [..., d]: [...]."""
        own = theta[..., None, :].expand(*theta.shape[:-1], self.chain.steps, theta.shape[-1])
        reward = exact_objective(self.chain, self.reward, own, [1.0] * self.chain.steps)
        return reward - self.decay * (theta - self.start).square().sum(-1) / 2

    def gradient(self, theta: Tensor) -> Tensor:
        """∇J at theta [..., d]."""
        theta = theta.clone().requires_grad_()
        return torch.autograd.grad(self.value(theta).sum(), theta)[0]

    def last_terms(self, theta: Tensor, k: int) -> Tensor:
        """What truncated BP through the last k steps estimates, at theta [d]: their terms of ∇J."""
        own = theta.expand(self.chain.steps, -1).clone().requires_grad_()
        value = exact_objective(self.chain, self.reward, own, [1.0] * self.chain.steps)
        return torch.autograd.grad(value, own)[0][-k:].sum(0) - self.decay * (theta - self.start)

    def exact_path(self, k: int) -> Tensor:
        """[n, d]: noiseless ascent from the start to rest by the last k steps' terms; k = T: to the best."""
        path = [self.start]
        for _ in range(1000):
            path.append(path[-1] + 0.05 * self.last_terms(path[-1], k))
        return torch.stack(path)

    def curvature(self, thetas: Tensor) -> float:
        """The largest |eigenvalue| of the Hessian at any of thetas [n, d]: L, where they have been."""
        hessians = torch.func.vmap(torch.func.hessian(self.value))(thetas)
        return float(torch.linalg.eigvalsh(hessians).abs().max())


@dataclass(frozen=True)
class Run:
    """thetas: [K + 1, d], before every step and after the last. estimates: [K, d], of ∇J."""

    thetas: Tensor
    estimates: Tensor


def train(
    objective: Objective,
    update: Update,
    step_size: Callable[[int], float],
    *,
    iterations: int,
    size: int,
    seed: int,
) -> Run:
    """θ_{k+1} = θ_k + step_size(k) (estimate - decay (θ_k - θ_0)) from θ_0; leaves the chain at θ_0."""
    chain = objective.chain
    engine = Engine(chain, objective.reward, seed=seed, micro_batch=size)
    thetas, estimates = [objective.start], []
    for k in range(iterations):
        update(engine, Batch(("",) * size, k))
        estimates.append(ascent(chain) - objective.decay * (thetas[-1] - objective.start))
        thetas.append(thetas[-1] + step_size(k) * estimates[-1])
        place(chain, thetas[-1])
    place(chain, objective.start)
    return Run(torch.stack(thetas), torch.stack(estimates))


def place(chain: LinearGaussianChain, theta: Tensor) -> None:
    """Overwrite the parameters by theta [d]."""
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(theta.float(), chain.parameters())


def draw(axes: Axes, x: Sequence[float], found: Sequence[Number], **style: Any) -> None:
    """A line through the values, with 95 % intervals."""
    axes.errorbar(x, [n.value for n in found], [1.96 * n.error for n in found], capsize=2, **style)


def save(figure: Figure, file: Path) -> None:
    """As FILE.png and FILE.svg, with the legend below the axes."""
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    for suffix in (".png", ".svg"):
        figure.savefig(file.with_suffix(suffix), dpi=150)
    plt.close(figure)
