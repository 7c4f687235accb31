"""What every method looks like: mostly a distribution over plans."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from bench.base.strict import Strict

if TYPE_CHECKING:  # a method's settings are read without torch
    from bench.engine.batch import Batch, Improved, Report, Start
    from bench.engine.engine import Engine


class Method(ABC):
    """A way of estimating the gradient of E[R]. One file per method in methods/."""

    name: ClassVar[str]  # what the command line calls it; read from the file, so written out
    look: ClassVar[tuple[str, str, str] | None] = None  # in figures: colour, marker, line; None: a spare one
    Config: ClassVar[type[Strict]]
    trains: ClassVar[bool] = True  # False: `InferenceMethod`, no optimizer steps
    estimates: ClassVar[bool] = True  # False: the gradient is none of the reward, and is not profiled
    memoryless: ClassVar[bool] = False  # its `eta` has to make x_0 independent of x_T
    biased: bool  # for its own objective, with its settings (smoothing by perturbation aside)
    needs_reward_grad: bool  # the reward must be differentiable
    reward_frames: int | None = None  # frames of a video that are drawn and rewarded; None: all
    passes: int = 1  # how often each sample of a batch is pulled back
    updates_per_batch: int = 1  # optimizer steps
    turns: Sequence[int] = ()  # batches from which on a schedule gives it other plans
    # Forward, backward and repeated forward evaluations of each sample in a batch, besides its plan's steps.
    besides: tuple[int, int, int] = (0, 0, 0)

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
