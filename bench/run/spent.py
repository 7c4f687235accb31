"""What a training has spent, and when that is all it was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from bench.base.errors import BenchError
from bench.base.units import duration
from bench.experiment.settings import TrainConfig


@dataclass
class Counters:
    """How far a cell is. Numbers are sums since its beginning."""

    step: int = 0  # optimizer steps
    batch: int = 0
    samples: int = 0
    seconds: float = 0.0  # without compile_seconds
    compile_seconds: float = 0.0
    nfe_forward: int = 0
    nfe_backward: int = 0
    nfe_again: int = 0
    memory: int = 0  # bytes: the most that a batch took on a GPU; else the process's high-water mark
    evaluated: int = -1  # step of the newest evaluation
    due: bool = False  # whether there is to be one at this step, before the next batch

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Counters:
        """Those of a line of metrics.jsonl, or of a checkpoint."""
        return cls(**{field.name: row[field.name] for field in fields(cls) if field.name in row})

    def row(self) -> dict[str, Any]:
        """What a line of metrics.jsonl says of them."""
        return {key: value for key, value in asdict(self).items() if key not in ("evaluated", "due")}

    @property
    def forward_equivalents(self) -> int:
        """Evaluations of the network that the method needs; a backward counts as two forwards."""
        return self.nfe_forward + 2 * self.nfe_backward


class Limit:
    """How far a training goes: so many optimizer steps, or what a budget pays for."""

    def __init__(self, settings: TrainConfig) -> None:
        self._budget = budget = settings.budget
        self._evaluations, self._eval_every = settings.evaluations, settings.eval_every
        steps = 0 if settings.steps is None else settings.steps
        self.end = (
            steps if budget is None else duration(budget, "budget") if isinstance(budget, str) else budget
        )

    def __str__(self) -> str:
        if self._budget is None:
            return f"{self.end} steps"
        return self._budget if isinstance(self._budget, str) else f"{self.end:,} forwards"

    def position(self, counters: Counters) -> float:
        """How far it is, in the limit's own unit: steps, forward equivalents or seconds."""
        if self._budget is None:
            return counters.step
        return counters.seconds if isinstance(self._budget, str) else counters.forward_equivalents

    def reached(self, counters: Counters) -> bool:
        """Whether nothing is left, or less than another batch takes on average."""
        position = self.position(counters)
        if self._budget is None:
            return position >= self.end
        return counters.batch > 0 and position * (1 + 1 / counters.batch) > self.end

    def check(self, counters: Counters) -> None:
        """Raises BenchError if the first batch has cost more than there was."""
        taken = self.position(counters)
        if self._budget is not None and counters.batch == 1 and taken > self.end:
            raise BenchError(
                f"train.budget is {self}, and one batch takes {taken:,.0f}: give more, or make smaller "
                "batches (train.prompts_per_step)"
            )

    def passed(self, before: Counters, now: Counters) -> bool:
        """Whether an evaluation is due that was not before: `evaluations` or `eval_every` say so."""
        parts, every = self._evaluations, self._eval_every
        here, there = (
            (int(self.position(c) * parts / self.end) for c in (before, now)) if self.end else (0, 0)
        )
        return there > here or (every is not None and now.step // every > before.step // every)
