"""Sending sweeps of the test model to a real SLURM."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.base.layers import dump_yaml
from bench.run.store import ResultsDir
from tests.support.running import DOTS, PATIENCE, bench, cell, status

PROFILE: dict[str, Any] = {"partition": "main", "mem": "1GB", "time": "5m", "warning": 30, "report": False}


def profile(directory: Path, **changes: object) -> Path:
    """A profile for the small cluster."""
    path = directory / "profile.yaml"
    path.write_text(dump_yaml(PROFILE | changes))
    return path


def submit(out: Path, by: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`bench submit` on the test model."""
    done = bench("submit", "--profile", by, "--model", DOTS, "--out", out, *arguments)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def states(out: Path) -> dict[str, dict[str, Any]]:
    """What `bench status --json` says, by cell."""
    done = bench("status", out, "--json")
    assert done.returncode == 0, done.stderr
    return {one["cell"]: one for one in json.loads(done.stdout)}


def jobs(out: Path) -> list[dict[str, str]]:
    """Of every submission: cell → job."""
    found = sorted(out.glob("slurm/*/submission.json"))
    return [json.loads(path.read_text())["jobs"] for path in found]


def until(true: Callable[[], bool]) -> None:
    """Wait for something that takes a moment."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)


def step(out: Path, prefix: str) -> int:
    """How far the only cell is whose id starts so; 0 before it was planned."""
    if not any(found.id.startswith(prefix) for found in ResultsDir(out).cells()):
        return 0
    metrics = cell(out, prefix).metrics
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def state(out: Path, prefix: str) -> str:
    """Of its status.json."""
    return status(cell(out, prefix))["state"]
