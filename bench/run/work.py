"""Work: what one process is started for, such as a cell to train. Its directory has its settings and status.

The first key of config.yaml says what kind of work a directory is for: `work`, with one of the names in
`KINDS`. The settings of a cell that trains or evaluates begin with another key.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.base.errors import BenchError
from bench.experiment.settings import CellConfig
from bench.run.forecast import memory_advice
from bench.run.store import CellDir, WorkDir, WorkState

if TYPE_CHECKING:
    from bench.run.slurm.cluster import Profile, Resources

KEY = "work"
# "module:class", as in bench.base.registry: names instead of imports, because the classes are in rooms above.
KINDS = {
    "vbench generate": "bench.measure.vbench.jobs:VideosJob",
    "vbench score": "bench.measure.vbench.jobs:ScoreJob",
}


@dataclass(frozen=True)
class Work(ABC):
    """What one process is started for, by the hidden command `command`. title: what people call it.

    unit: what `total` and the status count. label_heading: above a column of labels. not_reported: why
    `bench report` cannot show this kind of work, and what shows it; None if it can.
    """

    directory: WorkDir
    config: Any  # strict settings, among them `threads` and `label`
    title: str

    command: ClassVar[str]
    unit: ClassVar[str] = "step"
    label_heading: ClassVar[str] = "of"
    not_reported: ClassVar[str | None] = None

    @classmethod
    @abstractmethod
    def read(cls, directory: CellDir) -> Work:
        """The work that the config.yaml of a directory describes. Raises BenchError."""

    @property
    def id(self) -> str:
        """The name of the directory, which is the id of the work in it."""
        return self.directory.id

    def record_done(self) -> None:
        """Say of finished work that it is done, whoever did it: videos and scores may come from elsewhere."""
        if self.directory.status().state is not WorkState.DONE and self.total is not None:
            self.directory.write_config(self.config)
            self.directory.write_status(WorkState.DONE, self.total, total=self.total)

    @property
    def label(self) -> str:
        """What it shares with work of the same sort: the method, or what it is a part of."""
        return self.config.label

    @property
    def threads(self) -> int:
        """CPU threads of each of its processes."""
        return self.config.threads

    @property
    def deterministic(self) -> bool:
        """Whether a GPU is to give the same bits again."""
        return False

    @property
    @abstractmethod
    def total(self) -> int | None:
        """How many units it takes until it is done; None if that is not known."""

    @property
    @abstractmethod
    def log(self) -> Path:
        """A file that grows by a JSON line whenever the work gets further."""

    @abstractmethod
    def finished(self) -> bool:
        """Whether there is nothing left to do, whoever did it."""

    @abstractmethod
    def resources(self, profile: Profile) -> Resources:
        """What it asks for on the cluster that the profile describes."""

    @abstractmethod
    def memory_advice(self, gpu: bool) -> str:
        """What to do if it ran out of memory: the GPU's, or main memory."""


@dataclass(frozen=True)
class CellWork(Work):
    """A cell to train and evaluate, or the base model to evaluate."""

    directory: CellDir
    config: CellConfig

    command = "cell"
    label_heading = "methods"

    @classmethod
    def read(cls, directory: CellDir) -> CellWork:
        """A cell that is in the store already."""
        return cls(directory, directory.config(), directory.id)

    @property
    def total(self) -> int | None:
        """The optimizer steps; None for the base model and with a budget."""
        return None if self.config.training is None else self.config.training.train.steps

    @property
    def deterministic(self) -> bool:
        """As its settings say."""
        return self.config.deterministic

    @property
    def log(self) -> Path:
        """One line per optimizer step."""
        return self.directory.metrics

    def finished(self) -> bool:
        """Whether it is done, and at least as far as the settings ask."""
        status = self.directory.status()
        return status.state is WorkState.DONE and status.step >= (self.total or 0)

    def resources(self, profile: Profile) -> Resources:
        """By the model and the method."""
        return profile.resources(self.config)

    def memory_advice(self, gpu: bool) -> str:
        """With the estimate of what it takes."""
        return memory_advice(self.config, gpu)


def kind_of(directory: CellDir) -> type[Work]:
    """What kind of work a directory is for. Raises BenchError if a newer version of the program wrote it."""
    path = directory.path / "config.yaml"
    with path.open(encoding="utf-8", errors="replace") as stream:
        key, _, name = (part.strip() for part in stream.readline().partition(":"))
    if key != KEY:
        return CellWork
    if name not in KINDS:
        raise BenchError(f"{path}: unknown kind of work '{name}'. Known: {', '.join(KINDS)}")
    module, _, attribute = KINDS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def work_in(directory: CellDir) -> Work:
    """The work of a directory that is in the store already. Raises BenchError."""
    return kind_of(directory).read(directory)
