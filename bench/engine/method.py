"""What every method looks like: mostly a distribution over plans."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from bench.base.strict import Strict

if TYPE_CHECKING:
    import torch

    from bench.engine.engine import Engine


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
    """One estimator term of a batch gradient: its norm and, with ≥ 2 micro-batches, the variance of its
    mean."""

    norm: float
    variance: float | None


@dataclass(frozen=True)
class Report:
    """What one gradient was made of. The gradient itself (of -E[R]) is in `.grad` of the chain's parameters.

    rewards: raw scores [B] of the whole batch. terms: by kind ("fo", "ho", "zo"), as weighted in the sum.
    forward / backward: network evaluations of the whole batch, counted per sample. half_order_norms: chain
    step → norm of one sample's HO gradient there (root mean square over the batch), unweighted, where
    measured. control_fits: what a control variate learns from, by chain step: sums over this process's rows
    (`bench.engine.likelihood_ratio.scale_of`). extra: what a method wants logged.
    """

    rewards: torch.Tensor
    terms: dict[str, Term]
    forward: int
    backward: int
    half_order_norms: dict[int, float] = field(default_factory=dict)
    control_fits: dict[int, tuple[float, ...]] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """Pictures that are about to be made by the deterministic chain.

    prompts: one each. noise: their x_T, [B, *latent_shape]. seed: of the evaluation. pictures: (place of the
    prompt in the list, number of the picture) of each, which with the seed key its random streams.
    """

    prompts: tuple[str, ...]
    noise: torch.Tensor
    seed: int
    pictures: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Improved:
    """Better noise for some pictures. noise: [B, *latent_shape]. rewards: raw scores [B, steps] on the way.

    forward / backward: network evaluations for all B pictures together, as in `Report`.
    """

    noise: torch.Tensor
    rewards: torch.Tensor
    forward: int
    backward: int


class Method(ABC):
    """A way of estimating the gradient of E[R]. One file per method in methods/."""

    Config: ClassVar[type[Strict]]
    trains: ClassVar[bool] = True  # False: `InferenceMethod`, no optimizer steps
    biased: bool  # for its own objective, with its settings (smoothing by perturbation aside)
    needs_reward_grad: bool  # the reward must be differentiable
    reward_frames: int | None = None  # so many drawn frames of a video are rewarded; None: all, or images

    def __init__(self, config: Any, steps: int) -> None:
        """config: an instance of `Config`; steps: T of the chain. Raises BenchError if they do not fit."""
        self.config = config
        self.steps = steps
        # Running statistics that a checkpoint must carry: plain values and tensors.
        self.state: dict[Any, Any] = {}

    @abstractmethod
    def updates(self, engine: Engine, batch: Batch) -> Iterator[Report]:
        """Leave a gradient in `.grad` and yield its report, once per optimizer step (the caller takes the
        step)."""


class InferenceMethod(Method):
    """Trains nothing and works while pictures are made: held-out pictures start from the noise it chooses.

    Its cells have no optimizer steps. The evaluation hands it the starting noise that all methods share, and
    what that took is on record by picture (`bench.run.noise_choice`).
    """

    trains: ClassVar[bool] = False

    def updates(self, engine: Engine, batch: Batch) -> Iterator[Report]:
        """None: there is nothing to train."""
        yield from ()

    @abstractmethod
    def improve(self, engine: Engine, start: Start) -> Improved:
        """Noise whose pictures have a higher reward. A picture's depends on its row of `start` alone."""
