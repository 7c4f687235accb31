"""The work of `vbench generate` and `vbench score` as SLURM cells: a part of the videos, or one dimension.

What fills a directory DIR is on record in `DIR.jobs`, a results directory beside it, so that `status`,
`logs`, `cancel` and `retry` serve these cells as they serve those that train. No torch here.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.base.errors import BenchError
from bench.base.layers import load_config
from bench.base.strict import Strict
from bench.measure.vbench import score, suite
from bench.measure.vbench.dimensions import DIMENSIONS, Dimension
from bench.measure.vbench.suite import Video
from bench.run.slurm.cluster import Profile, Resources
from bench.run.store import CellDir, ResultsDir, WorkDir
from bench.run.work import KEY, Work

NAMED = 2  # dimensions that stand in a cell's name
GENERATE: Literal["vbench generate"] = "vbench generate"
SCORE: Literal["vbench score"] = "vbench score"


class Part(Strict, ABC):
    """config.yaml of such a cell, whose first key is `work`. Paths are absolute, as a job may be sent again
    from elsewhere; but a model that is a path is kept as it was typed, since videos.json names it so."""

    work: Literal["vbench generate", "vbench score"]
    threads: int = 1

    @property
    @abstractmethod
    def id(self) -> str:
        """The cell's name, the same whenever the same is asked for."""

    @property
    @abstractmethod
    def label(self) -> str:
        """What it is a part of."""

    @property
    @abstractmethod
    def total(self) -> int:
        """Its steps."""

    @property
    @abstractmethod
    def memory_advice(self) -> str:
        """What to say where it ran out of memory."""

    @abstractmethod
    def finished(self) -> bool:
        """Whether there is nothing left to do."""

    @abstractmethod
    def resources(self, profile: Profile) -> Resources:
        """What it asks for, by the profile: it is one process, so one GPU at most."""


class VideosPart(Part):
    """Every `parts`-th video of a selection. The options are those of `vbench generate`."""

    videos: str
    model: str | None
    name: str
    lora: str | None
    settings: tuple[str, ...]
    dimensions: tuple[str, ...]
    subset: int | None
    per_prompt: int | None
    seed: int
    batch: int
    fps: float | None
    part: int
    parts: int

    @property
    def shard(self) -> str:
        """K/N."""
        return f"{self.part}/{self.parts}"

    @property
    def id(self) -> str:
        """`scene-2of8`."""
        return f"{self.label}-{self.part:0{len(str(self.parts))}d}of{self.parts}"

    @property
    def label(self) -> str:
        """`all`, `scene`, `color+scene`, `4dimensions-a1b2c3`, with what limits them: `scene-subset3`."""
        count, joined = len(self.dimensions), "+".join(self.dimensions)
        digest = hashlib.sha256(joined.encode()).hexdigest()[:6]
        text = joined if count <= NAMED else f"{count}dimensions-{digest}"
        text = "all" if count == len(DIMENSIONS) else text
        text += "" if self.subset is None else f"-subset{self.subset}"
        return text + ("" if self.per_prompt is None else f"-each{self.per_prompt}")

    @property
    def total(self) -> int:
        """Its videos."""
        return len(self.listed())

    @property
    def memory_advice(self) -> str:
        """What takes less."""
        return "A smaller --batch takes less."

    def chosen(self) -> list[Dimension]:
        """The dimensions."""
        return [DIMENSIONS[name] for name in self.dimensions]

    def listed(self) -> list[Video]:
        """Its videos."""
        return suite.shard(suite.videos(self.chosen(), self.subset, self.per_prompt), self.shard)

    def missing(self) -> list[Video]:
        """Those that are not there."""
        return [video for video in self.listed() if not suite.complete(Path(self.videos) / video.name)]

    def finished(self) -> bool:
        """All videos are there, whoever made them."""
        return not self.missing()

    def resources(self, profile: Profile) -> Resources:
        """By the model."""
        return profile.layered(models=[self.name]).for_one_process()


class ScorePart(Part):
    """One dimension. The options are those of `vbench score`; out: the directory that has scores/.

    Its job downloads nothing: `--fetch` does that before it is sent.
    """

    videos: str
    out: str
    dimension: str
    custom: bool
    prompts_file: str | None
    device: str
    python: str | None
    static_filter: bool
    timeout: float | None

    @property
    def id(self) -> str:
        """The dimension's name."""
        return self.dimension

    @property
    def label(self) -> str:
        """The dimension's name."""
        return self.dimension

    @property
    def total(self) -> int:
        """A score."""
        return 1

    @property
    def memory_advice(self) -> str:
        """What it is that takes it."""
        return "What a dimension takes depends on its model and on the size of the videos."

    def asked(self) -> score.Asked:
        """As the command would have it for this dimension alone."""
        return score.Asked(
            videos=Path(self.videos),
            dimensions=[DIMENSIONS[self.dimension]],
            out=Path(self.out),
            custom=self.custom,
            prompts_file=None if self.prompts_file is None else Path(self.prompts_file),
            device=self.device,
            python=None if self.python is None else Path(self.python),
            static_filter=self.static_filter,
            timeout=self.timeout,
        )

    def finished(self) -> bool:
        """There is a score of these very videos."""
        (cell,) = score.cells_of(self.asked())
        return score.finished(cell, score.read_status(cell.scores))

    def resources(self, profile: Profile) -> Resources:
        """By the dimension."""
        return profile.layered(dimensions=[self.dimension]).for_one_process()


def jobs_of(directory: Path) -> ResultsDir:
    """Where the jobs that fill a directory are on record."""
    return ResultsDir(directory.with_name(directory.name + ".jobs"))


def read(cell: WorkDir) -> Part | None:
    """The settings of such a cell; None for a cell that trains or evaluates."""
    path = cell.path / "config.yaml"
    with path.open(encoding="utf-8", errors="replace") as stream:
        key, _, kind = stream.readline().partition(":")
    if key != KEY:
        return None
    return load_config(path, VideosPart if kind.strip() == GENERATE else ScorePart)


@dataclass(frozen=True)
class PartWork(Work):
    """A part as work for a process."""

    directory: CellDir
    config: Part

    command = "vbench-cell"
    not_reported = "cells of VBench, which has a table and no report: python -m bench vbench table"

    @classmethod
    def read(cls, directory: CellDir) -> PartWork:
        """A part that is on record already."""
        part = read(directory)
        if part is None:
            raise BenchError(f"{directory.path}: no part of VBench's videos or scores")
        return cls(directory, part, directory.id)

    @property
    def label(self) -> str:
        """What it is a part of."""
        return self.config.label

    @property
    def threads(self) -> int:
        """As the settings say."""
        return self.config.threads

    @property
    def total(self) -> int:
        """Videos, or one score."""
        return self.config.total

    @property
    def log(self) -> Path:
        """One line per batch of videos."""
        return self.directory.metrics

    def finished(self) -> bool:
        """Whether the videos or the score are there, whoever made them."""
        return self.config.finished()

    def resources(self, profile: Profile) -> Resources:
        """By the model or the dimension."""
        return self.config.resources(profile)

    def memory_advice(self, gpu: bool) -> str:
        """What takes less."""
        return self.config.memory_advice


def work_of(parts: Sequence[Part], results: ResultsDir) -> list[PartWork]:
    """The parts as work for processes, each with its cell's directory."""
    return [PartWork(results.cell(part.id), part, part.id) for part in parts]
