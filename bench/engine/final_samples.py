"""What methods of the forward process share: samples of the deterministic chain, levels that they are noised
to, and older parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.base.lazy import torch
from bench.engine.batch import Batch, Trajectory
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.random_streams import uniform

if TYPE_CHECKING:
    from bench.engine.engine import Engine

OLDER = "older"  # in a method's state: the running mean of its parameters, flat [d]


def final_samples(engine: Engine, batch: Batch, steps: int, older: torch.Tensor | None = None) -> Trajectory:
    """Samples of the deterministic chain with their rewards; no step of it is pulled back.

    older: parameters that make them, flat [d], instead of the present ones.
    """
    plan = Plan((Segment(Kind.SKIP, 0, steps),), (0.0,) * steps)
    with nullcontext() if older is None else holding(engine.chain.parameters(), older):
        return engine.rollout([plan] * len(batch.prompts), batch)


def levels(count: int, steps: int, seed: int, batch: Batch) -> list[int]:
    """`count` of the chain's first `steps` steps, one from each of as many equal parts of them.

    Each step is drawn as often as every other on average, so that the mean over the drawn ones estimates that
    over all; a step that lies in two parts may be drawn twice. The same for all samples of a batch.
    """
    rng = uniform("levels", seed, batch.step)
    return [min(int((part + rng.random()) * steps / count), steps - 1) for part in range(count)]


def flat(parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    """A copy of their values, flat [d]."""
    return torch.cat([p.detach().reshape(-1) for p in parameters])


@contextmanager
def holding(parameters: Sequence[torch.nn.Parameter], values: torch.Tensor) -> Iterator[None]:
    """Within the context, the parameters have these values, flat [d]. No graph of theirs may be alive."""
    before = flat(parameters)
    _put(parameters, values)
    try:
        yield
    finally:
        _put(parameters, before)


def _put(parameters: Sequence[torch.nn.Parameter], values: torch.Tensor) -> None:
    with torch.no_grad():
        for p, value in zip(parameters, values.split([p.numel() for p in parameters]), strict=True):
            p.copy_(value.view_as(p))


@dataclass(frozen=True)
class RunningMean:
    """The running mean θ̄ ← d θ̄ + (1 - d) θ of a method's parameters, kept in its state.

    After the n-th batch d is n · ramp, and `most` at the most.
    """

    most: float
    ramp: float

    def of(self, state: dict[Any, Any], parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
        """θ̄, flat [d]; at first θ itself."""
        if OLDER not in state:
            state[OLDER] = flat(parameters)
        return state[OLDER]

    def follow(self, state: dict[Any, Any], parameters: Sequence[torch.nn.Parameter], batch: Batch) -> None:
        """Bring it nearer to θ, after the batch's optimizer step."""
        decay = min(self.most, self.ramp * (batch.step + 1))
        state[OLDER] = decay * state[OLDER] + (1 - decay) * flat(parameters)
