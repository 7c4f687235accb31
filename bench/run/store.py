"""The results directory: every write is a temporary file and a rename, or a line appended to a log.

Layout, keys and units: docs/results.md. A cell may be killed at any instant: logs are cut back to the
checkpoint that a run resumes from. No torch here.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from bench.base.errors import BenchError, Damaged
from bench.base.files import write_atomically
from bench.base.layers import load_config, write_yaml
from bench.base.locks import lock
from bench.base.strict import Strict
from bench.experiment.settings import SCHEMA_VERSION, CellConfig

KEPT = ("lock", "claim.json", ".claim.json")  # with what they begin; when a cell starts again


class CellInUse(BenchError):
    """Another process writes the cell."""


class WorkState(StrEnum):
    """Where a cell stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    TIMEOUT = "timeout"
    PREEMPTED = "preempted"
    DAMAGED = "damaged"  # never written: what status.json says cannot be read


class Cause(StrEnum):
    """What ended a cell before its end, where that is known and no error of a program."""

    NOT_FINITE = "not finite"  # the training diverged
    KILLED = "killed"
    OUT_OF_MEMORY = "out of memory"
    NODE_FAILURE = "node failure"
    CANCELLED = "cancelled"
    DEPENDENCY = "dependency failed"
    LOST = "lost"


class Status(Strict):
    """status.json. `running` outlives a process that was killed; the next run picks the cell up."""

    schema_version: int = SCHEMA_VERSION
    state: WorkState
    cause: Cause | None = None
    step: int = 0
    total: int | None = None
    seconds: float = 0.0
    message: str | None = None
    updated: str = ""
    pid: int | None = None
    host: str | None = None


@dataclass(frozen=True)
class WorkDir:
    """The directory of work that one process does: its settings, its status, its lock."""

    path: Path

    @property
    def id(self) -> str:
        """The name of the directory, which is the id of the work in it."""
        return self.path.name

    def write_config(self, config: Strict) -> None:
        """Record the resolved settings."""
        write_atomically(self.path / "config.yaml", write_yaml(config))

    def status(self) -> Status:
        """Where the cell stands: pending if nothing was written yet, damaged if it cannot be read."""
        path = self.path / "status.json"
        if not path.exists():
            return Status(state=WorkState.PENDING)
        try:
            return Status.model_validate_json(path.read_bytes())
        except ValidationError:
            what = "empty" if path.stat().st_size == 0 else f"no status of schema version {SCHEMA_VERSION}"
            return Status(state=WorkState.DAMAGED, message=str(Damaged(path, what)))

    def write_status(
        self,
        state: WorkState,
        step: int | None = None,
        seconds: float | None = None,
        message: str | None = None,
        *,
        cause: Cause | None = None,
        total: int | None = None,
    ) -> None:
        """Record where the cell stands, always last. step, seconds, total: None leaves what was recorded.

        Raises BenchError over a damaged status, which may be that of a newer version of the program.
        """
        before, now = self.status(), datetime.now(UTC).isoformat(timespec="seconds")
        if before.state is WorkState.DAMAGED:
            raise BenchError(before.message or "")
        status = Status(
            state=state,
            cause=cause,
            step=before.step if step is None else step,
            total=before.total if total is None else total,
            seconds=before.seconds if seconds is None else seconds,
            message=message,
            updated=now,
            pid=os.getpid(),
            host=socket.gethostname(),
        )
        write_atomically(self.path / "status.json", status.model_dump_json(indent=2) + "\n")

    def wipe(self) -> None:
        """Remove everything but the lock and the claim, the status first."""
        (self.path / "status.json").unlink(missing_ok=True)
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif not entry.name.startswith(KEPT):
                entry.unlink()

    @contextmanager
    def locked(self, patience: float = 3.0) -> Iterator[None]:
        """Hold the cell: one process at a time writes. The lock dies with its process.

        patience: seconds to wait for another process that is just ending.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("a+") as stream:
            deadline = time.monotonic() + patience
            while not lock(stream, self.path):
                if time.monotonic() > deadline:
                    stream.seek(0)
                    holder = stream.read().strip()
                    raise CellInUse(f"{self.path} is in use by {holder}: two runs write the same cell")
                time.sleep(0.1)
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}")
            stream.flush()
            yield


class CellDir(WorkDir):
    """cells/<id>/: one cell's files."""

    @property
    def metrics(self) -> Path:
        """One line per optimizer step."""
        return self.path / "metrics.jsonl"

    @property
    def evaluations(self) -> Path:
        """One line per evaluation × prompt × image × reward."""
        return self.path / "eval.jsonl"

    @property
    def features(self) -> Path:
        """Where the features of held-out pictures are stored, one file per evaluation."""
        return self.path / "features"

    @property
    def inference(self) -> Path:
        """One line per held-out picture whose noise a method chose."""
        return self.path / "inference.jsonl"

    @property
    def latents(self) -> Path:
        """Where the noise that an inference method chose is stored."""
        return self.path / "latents"

    def config(self) -> CellConfig:
        """The resolved settings of the cell."""
        return load_config(self.path / "config.yaml", CellConfig)


@dataclass(frozen=True)
class ResultsDir:
    """The directory results/<experiment>/ with all its cells."""

    path: Path

    @property
    def report(self) -> Path:
        """Derived files, always rebuildable."""
        return self.path / "report"

    def cell(self, cell_id: str) -> CellDir:
        """The directory of a cell, existing or not."""
        return CellDir(self.path / "cells" / cell_id)

    def cells(self) -> list[CellDir]:
        """All cells that were ever started or planned here, by name."""
        found = sorted((self.path / "cells").glob("*/config.yaml"))
        return [CellDir(path.parent) for path in found]
