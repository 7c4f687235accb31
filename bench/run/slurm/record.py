"""Submissions: `slurm/<name>/submission.json` in a results directory, and what jobs leave beside it.

slurm/<name>/submission.json   what was sent, with which profile and code, and which job has which cell
slurm/<name>/<job>_…           submitit's: the batch script, the logs of jobs
slurm/code/<digest>/           the code that the jobs run
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.base.strict import Strict
from bench.experiment.settings import SCHEMA_VERSION
from bench.run.store import ResultsDir

FOLDER = "slurm"
CODE = "code"
FILE = "submission.json"


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


class Submission(Strict):
    """submission.json. jobs: cell → job or array task, complete once `sent`. report: its job."""

    schema_version: int = SCHEMA_VERSION
    name: str
    created: str = Field(default_factory=_now)
    command: str
    profile: dict[str, Any]
    code: dict[str, Any]
    cells: tuple[str, ...]
    jobs: dict[str, str] = Field(default_factory=dict)
    arrays: tuple[str, ...] = ()
    report: str | None = None
    sent: bool = False

    def write(self, results: ResultsDir) -> None:
        """Put it in place."""
        path = results.path / FOLDER / self.name / FILE
        write_atomically(path, json.dumps(self.model_dump(mode="json"), indent=1) + "\n")


def read(path: Path) -> Submission:
    """A submission.json. Raises BenchError."""
    try:
        return Submission.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise BenchError(f"{path}: cannot be read: {error}") from error


def submissions(results: ResultsDir) -> dict[str, Submission]:
    """All submissions of a results directory by name, the oldest first."""
    paths = sorted((results.path / FOLDER).glob(f"*/{FILE}"))
    return {path.parent.name: read(path) for path in paths}


def log_files(results: ResultsDir, submission: str, job: str) -> list[Path]:
    """What the job itself printed, its children apart: submitit's and SLURM's own words."""
    return sorted((results.path / FOLDER / submission).glob(f"{job}_*_log.*"))
