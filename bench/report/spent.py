"""What a cell had spent at an evaluation."""

from __future__ import annotations

import numpy as np

from bench.report.load import CellResults

COUNTERS = ["step", "samples", "nfe_forward", "nfe_backward", "nfe_again", "seconds", "memory"]


def at_step(cell: CellResults, step: int) -> dict[str, float]:
    """The cell's counters after `step` optimizer steps; zeros before the first. Memory: the peak so far."""
    until = cell.metrics[cell.metrics["step"] <= step]
    if until.empty:
        peak = max(map(float, cell.inference["memory"].tolist()), default=0.0)
        return {**dict.fromkeys(COUNTERS, 0.0), "memory": peak}
    # All counters only ever grow, so the largest is the latest.
    return {name: float(np.max(np.asarray(until[name], dtype=float))) for name in COUNTERS}


def forward_equivalents(counters: dict[str, float]) -> float:
    """What budgets count (`bench.run.spent`)."""
    return counters["nfe_forward"] + 2 * counters["nfe_backward"]
