"""What a method reached as a function of what it had spent: the numbers behind the figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.report.groups import Contest, Group
from bench.report.load import CellResults
from bench.report.spent import at_step, forward_equivalents
from bench.report.summary import term_norms

SPENT = ["steps", "seconds", "forward_equivalents"]


def held_out(contest: Contest, group: Group, reward: str | None = None) -> pd.DataFrame:
    """One row per evaluation: steps, seconds, forward_equivalents, mean, se; the base model first.

    reward: any that is scored; None: the one that is trained on. mean: held-out score.
    se: of the gain over base on the same pictures (of the score, without a base).
    Seeds are matched evaluation by evaluation, the latest with the latest; what they spent is averaged.
    """
    reward = contest.reward if reward is None else reward
    counts = [len(cell.eval_steps) for cell in group.cells]
    if not counts:
        return pd.DataFrame(columns=[*SPENT, "mean", "se"])
    ranks = [*range(min(counts) - 1), -1]
    found = [_point(contest, group, reward, rank) for rank in ranks]
    if contest.base_scores(reward) is not None and found[0]["steps"] > 0:
        base = contest.score(contest.base, reward).mean if contest.base else float("nan")
        found.insert(0, {**dict.fromkeys(SPENT, 0.0), "mean": base, "se": 0.0})
    return pd.DataFrame(found)


def _point(contest: Contest, group: Group, reward: str, rank: int) -> dict[str, float]:
    spent = [spent_at(cell, cell.eval_steps[rank]) for cell in group.cells]
    score = contest.score(group, reward, rank)
    gain = contest.gain(group, reward, rank, interval=False)
    mean_spent = {name: float(np.mean([s[name] for s in spent])) for name in SPENT}
    return {**mean_spent, "mean": score.mean, "se": gain.se if gain.units else score.se}


def spent_at(cell: CellResults, step: int) -> dict[str, float]:
    """What a run had spent after so many steps, in each way of counting."""
    counters = at_step(cell, step)
    equivalents = forward_equivalents(counters)
    return {"steps": float(step), "seconds": counters["seconds"], "forward_equivalents": equivalents}


def training(cells: Sequence[CellResults]) -> pd.DataFrame:
    """Mean over seeds of the batches' mean reward: index step; columns reward and smooth (running mean)."""
    series = [
        cell.metrics.set_index("step")["reward_mean"].astype(float)
        for cell in cells
        if not cell.metrics.empty
    ]
    if not series:
        return pd.DataFrame(columns=["reward", "smooth"])
    reward = pd.concat(series, axis=1, join="inner").mean(axis=1)
    window = max(1, len(reward) // 6)
    return pd.DataFrame(
        {"reward": reward, "smooth": reward.rolling(window, center=True, min_periods=1).mean()}
    )


def norms(cells: Sequence[CellResults]) -> pd.DataFrame:
    """Median norm of each term over seeds: index step, one column per term. Zero norms are left out."""
    frames = [frame for frame in map(term_norms, cells) if not frame.empty]
    if not frames:
        return pd.DataFrame()
    together = pd.concat(frames)
    return together.where(together > 0).groupby(level=0).median().sort_index()
