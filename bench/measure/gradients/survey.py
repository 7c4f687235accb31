"""What gradients/ in a results directory holds: profiles with draws in them, and those that are not done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.base.errors import BenchError
from bench.measure.gradients.moments import Moments
from bench.measure.gradients.store import ProbeConfig, ProbeDir, probes
from bench.run.store import WorkState

UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Measured:
    """One profile and its sums. env: env.json of the latest process; empty if there is none."""

    config: ProbeConfig
    moments: Moments
    state: WorkState
    env: dict[str, Any]


@dataclass(frozen=True)
class Unfinished:
    """A profile that is not done or cannot be read (state `unreadable`), and why, as far as known."""

    id: str
    state: str
    draws: int
    reason: str


def survey(results: Path) -> tuple[list[Measured], list[Unfinished]]:
    """Everything below a results directory. What is not done but has draws is in both lists."""
    found: list[Measured] = []
    unfinished: list[Unfinished] = []
    for probe in probes(results):
        try:
            status = probe.status()
            measured = _read(probe, status.state)
        except BenchError as error:
            unfinished.append(Unfinished(probe.id, UNREADABLE, 0, str(error)))
            continue
        if measured is not None:
            found.append(measured)
        if status.state is not WorkState.DONE:
            unfinished.append(Unfinished(probe.id, str(status.state), status.step, status.message or ""))
    return found, unfinished


def _read(probe: ProbeDir, state: WorkState) -> Measured | None:
    saved, _ = probe.restore()
    if saved is None:
        return None
    path = probe.path / "env.json"
    try:
        env = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise BenchError(f"{path}: damaged: {error}") from error
    return Measured(probe.config(), saved.moments, state, env)
