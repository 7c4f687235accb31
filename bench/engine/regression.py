"""What methods of the forward process say: a loss at noised final samples, and what is predicted beside.

A final sample x_0 is noised to the level that a step of the chain starts from, x = α x_0 + σ ε, and the
network predicts x̂_0 from it in one step. At a fixed x every other prediction is linear in that: ε̂ = (x - α
x̂_0) / σ, and two velocities (ε - x_0 of flow matching, where α + σ = 1; α ε - σ x_0 of diffusion, where α² +
σ² = 1) differ by -1/σ times what the predictions of x_0 differ by. So losses on them are losses on x̂_0 with
other weights (docs/estimators.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeAlias

from bench.base.lazy import torch
from bench.engine.chain import Level

Context: TypeAlias = "Callable[[], AbstractContextManager[None]]"


@dataclass(frozen=True)
class Prediction:
    """What is predicted of some samples, noised to one level.

    samples: picks them out of a tensor of the whole batch, [B, …] → [n, …]. x0, predicted: [n, …], the second
    with a graph. beside: the same predictions under the contexts of `Regression.beside`, without one.
    """

    samples: slice | torch.Tensor
    level: Level
    x0: torch.Tensor
    predicted: torch.Tensor
    beside: Mapping[str, torch.Tensor]

    def velocity_error(self, x0: torch.Tensor) -> torch.Tensor:
        """Squared difference [n] between the velocity that is predicted and that of another x_0 [n, …], mean
        over dimensions."""
        return per_sample((self.predicted - x0).square()) / self.level.noise**2


@dataclass(frozen=True)
class Regression:
    """A loss at noised samples, averaged over levels and samples.

    steps: of the chain, whose levels all samples are noised to, each time with noise of its own. loss: [n] of
    some samples, to be made small. beside: contexts under which the same is predicted, too, without a graph,
    by name: such as `chain.reference`, or older parameters (`bench.engine.final_samples.holding`).
    """

    steps: Sequence[int]
    loss: Callable[[Prediction], torch.Tensor]
    beside: Mapping[str, Context] = field(default_factory=dict)


def per_sample(values: torch.Tensor) -> torch.Tensor:
    """Mean over dimensions: [n, …] → [n]."""
    return values.flatten(1).mean(dim=1)
