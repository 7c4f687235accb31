"""What every method looks like: mostly a distribution over plans."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from bench.chain import Plan
from bench.schema import Strict

if TYPE_CHECKING:
    import torch

    from bench.engine import Engine


@dataclass(frozen=True)
class Batch:
    """All samples of one optimizer step, over all micro-batches and processes: one prompt per sample.

    Samples of the same prompt are adjacent. `step` (0, 1, …) and the sample's place in `prompts` key every
    random stream, so neither micro-batch size nor the number of processes changes a result.
    """

    prompts: tuple[str, ...]
    step: int


@dataclass(frozen=True)
class Term:
    """One estimator term of a batch gradient: its norm and, with ≥ 2 micro-batches, the variance of its mean."""

    norm: float
    variance: float | None


@dataclass(frozen=True)
class Report:
    """What one gradient was made of. The gradient itself (of -E[R]) is in `.grad` of the chain's parameters.

    rewards: raw scores [B] of the whole batch. terms: by kind ("fo", "ho", "zo"). forward / backward: network
    evaluations of the whole batch, counted per sample. extra: what a method wants logged besides.
    """

    rewards: torch.Tensor
    terms: dict[str, Term]
    forward: int
    backward: int
    extra: dict[str, float] = field(default_factory=dict)


class Method(ABC):
    """A way of estimating the gradient of E[R]. One file per method in methods/."""

    Config: ClassVar[type[Strict]]

    def __init__(self, config: Any, steps: int) -> None:
        """config: an instance of `Config`; steps: T of the chain. Raises BenchError if they do not fit."""
        self.config = config
        self.steps = steps
        self.state: dict[str, Any] = {}  # running statistics a checkpoint must carry: plain values and tensors

    @property
    @abstractmethod
    def biased(self) -> bool:
        """Whether the estimator is biased for its own objective (smoothing by perturbation aside)."""

    @property
    @abstractmethod
    def needs_reward_grad(self) -> bool:
        """Whether the reward must be differentiable."""

    @abstractmethod
    def updates(self, engine: Engine, batch: Batch) -> Iterator[Report]:
        """Leave a gradient in `.grad` and yield its report, once per optimizer step (the caller takes the step)."""
