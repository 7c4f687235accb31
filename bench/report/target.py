"""What a run took until its held-out reward reached a target."""

from __future__ import annotations

import numpy as np

from bench.report.load import CellResults


def mean_score(cell: CellResults, reward: str, step: int) -> float:
    """Held-out mean of one evaluation."""
    return float(np.mean(cell.scored(reward, step)["score"].to_numpy(dtype=float)))


def first_crossing(cell: CellResults, reward: str, target: float) -> tuple[float, int] | None:
    """(training seconds, optimizer steps) at the first evaluation that reaches the target; None if none
    does."""
    seconds = dict(zip(cell.metrics["step"], cell.metrics["seconds"], strict=True))
    for step in cell.eval_steps:
        if mean_score(cell, reward, step) >= target:
            return float(seconds[step]), step
    return None
