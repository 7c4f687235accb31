"""`vbench generate` and `vbench score` as work for SLURM: a part of the videos, or one dimension.

What fills a directory DIR is on record in `DIR.jobs`, a results directory beside it, so that `status`,
`logs`, `cancel` and `retry` serve these jobs as they serve cells that train. No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from bench.base.layers import load_config
from bench.measure.vbench.score_request import ScoreRequest
from bench.measure.vbench.videos_request import VideosRequest
from bench.run.slurm.cluster import Profile, Resources
from bench.run.store import CellDir, ResultsDir
from bench.run.work import Work

Request = VideosRequest | ScoreRequest


@dataclass(frozen=True)
class VbenchJob(Work):
    """A request as work for a process: one process, so one GPU at most, whatever the profile has."""

    directory: CellDir
    config: Request

    command = "vbench-cell"
    not_reported = "cells of VBench, which has a table and no report: python -m bench vbench table"
    requests: ClassVar[type[Request]]

    @classmethod
    def read(cls, directory: CellDir) -> Self:
        """A job that is on record. Raises BenchError."""
        return cls(directory, load_config(directory.path / "config.yaml", cls.requests), directory.id)

    @classmethod
    def of(cls, request: Request, results: ResultsDir, profile: Profile) -> Self:
        """A request as a job, with as many threads as the profile gives it cores."""
        request = request.absolute()
        job = cls(results.cell(request.id), request, request.id)
        threads = job.resources(profile).cpus or 1
        return replace(job, config=request.model_copy(update={"threads": threads}))

    @property
    def log(self) -> Path:
        """One line per batch of videos."""
        return self.directory.metrics


@dataclass(frozen=True)
class VideosJob(VbenchJob):
    """A part of the videos."""

    config: VideosRequest

    unit = "video"
    requests = VideosRequest

    @property
    def total(self) -> int:
        """The number of videos in its part of the suite."""
        return len(self.config.listed())

    def finished(self) -> bool:
        """Whether all videos are there, whoever made them."""
        return not self.config.missing()

    def resources(self, profile: Profile) -> Resources:
        """What the profile gives to one process with this model."""
        return profile.layered(models=[self.config.name]).for_one_process()

    def memory_advice(self, gpu: bool) -> str:
        """The settings to type so that less memory is taken."""
        return "A smaller --at-once takes less."


@dataclass(frozen=True)
class ScoreJob(VbenchJob):
    """One dimension. It downloads nothing: `--fetch` does that before it is sent."""

    config: ScoreRequest

    unit = "score"
    requests = ScoreRequest

    @property
    def total(self) -> int:
        """There is one score to be had."""
        return 1

    def finished(self) -> bool:
        """Whether there is a score of these very videos."""
        return self.config.finished()

    def resources(self, profile: Profile) -> Resources:
        """What the profile gives to one process for this dimension."""
        return profile.layered(dimensions=[self.config.dimension]).for_one_process()

    def memory_advice(self, gpu: bool) -> str:
        """What it is that takes it."""
        return "What a dimension takes depends on its model and on the size of the videos."


def jobs_of(directory: Path) -> ResultsDir:
    """Where the jobs that fill a directory are on record."""
    return ResultsDir(directory.with_name(directory.name + ".jobs"))
