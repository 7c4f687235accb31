"""What the page's charts are drawn from: plain numbers and texts, the same for the same results.

A contest's data is one JSON document. Methods are numbered in it from the best down, and `m` is a method's
number. Numbers have SIGNIFICANT digits; null: not known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import pandas as pd

from bench.base.style import BLACK, Look, looks, term_look
from bench.base.units import MIB
from bench.report import curves
from bench.report.figures import AXES
from bench.report.groups import Contest
from bench.report.over_optimised import COLLAPSED
from bench.report.pareto import front
from bench.report.spent import at_step, forward_equivalents
from bench.report.summary import Line
from bench.report.tables import collapsed
from bench.run.evaluations import DIVERSITY

SIGNIFICANT = 6
MOST = 200  # points of a line that has one per optimizer step
DASH = 1.6  # pixels for a unit of matplotlib's dashes
SYMBOLS = {  # matplotlib's markers → Observable Plot's symbols, and by how many degrees they are turned
    "o": ("circle", 0),
    "s": ("square", 0),
    "D": ("diamond", 0),
    "h": ("hexagon", 0),
    "P": ("cross", 0),
    "X": ("cross", 45),
    "^": ("triangle", 0),
    "v": ("triangle", 180),
    "<": ("triangle", -90),
    ">": ("triangle", 90),
}
COSTS = {**AXES, "memory": "peak memory in MiB"}


def chart_data(contest: Contest, lines: Sequence[Line], target: float | None = None) -> dict[str, Any]:
    """Everything that the page draws of a contest; without methods that have an evaluation, nothing.

    target: of the trained reward, where a workload has one.
    """
    shown = [line for line in lines if not line.is_base and line.group.cells]
    if not shown:
        return {}
    look = looks({group.label: group.method for group in contest.groups})
    norms, found = _norms(shown), [_curves(contest, shown, reward) for reward in contest.rewards]
    if target is not None:
        found[0]["levels"].append({"name": "target", "value": target})
    return {
        "reward": contest.reward,
        "axes": AXES,
        "costs": COSTS,
        "methods": [{"label": s.group.label, **_look(look[s.group.label])} for s in shown],
        "curves": found,
        "collapses": [_collapse(m, line) for m, line in enumerate(shown) if collapsed(line)],
        "gains": [_gains(shown, reward) for reward in contest.rewards if reward != DIVERSITY],
        "fronts": {key: _front(shown, key) for key in COSTS},
        "training": _training(shown),
        "norms": norms,
        "terms": {term: _look(term_look(term)) for term in sorted({row["term"] for row in norms})},
    }


def as_json(data: Any) -> str:
    """Compact JSON that can stand within a script element, numbers rounded."""
    text = json.dumps(_plain(data), separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        rounded = float(f"{value:.{SIGNIFICANT}g}")
        return None if not math.isfinite(rounded) else int(rounded) if rounded.is_integer() else rounded
    return value


def _look(look: Look) -> dict[str, Any]:
    """Black is the colour of text, which is light on a dark page."""
    symbol, turn = SYMBOLS[look.marker]
    dash = "" if look.line == "-" else " ".join(f"{DASH * length:g}" for length in look.line[1])
    colour = "currentColor" if look.colour == BLACK else look.colour
    return {"colour": colour, "dash": dash, "symbol": symbol, "turn": turn}


def _curves(contest: Contest, shown: Sequence[Line], reward: str) -> dict[str, Any]:
    """Held-out scores of a reward at every evaluation, and the levels that they are held against."""
    points = [
        {"m": m, **row}
        for m, line in enumerate(shown)
        for row in _rows(curves.held_out(contest, line.group, reward).fillna({"se": 0.0}))
        if math.isfinite(row["mean"])
    ]
    levels = []
    if contest.base is not None and math.isfinite(base := contest.score(contest.base, reward).mean):
        levels = [{"name": "base", "value": base}]
        if reward == DIVERSITY:
            levels.append({"name": f"{COLLAPSED:.0%} of it", "value": COLLAPSED * base})
    label = reward if reward == DIVERSITY else f"held-out {reward}"
    return {"reward": reward, "label": label, "levels": levels, "points": points}


def _collapse(m: int, line: Line) -> dict[str, Any]:
    """Where the runs of a method that collapsed did so, as in the table: the median."""
    found = [
        (cell, one.step)
        for cell, one in zip(line.group.cells, line.collapses, strict=True)
        if one is not None
    ]
    spent = [at_step(cell, step) for cell, step in found]
    return {
        "m": m,
        "steps": median(step for _, step in found),
        "seconds": median(counters["seconds"] for counters in spent),
        "forward_equivalents": median(map(forward_equivalents, spent)),
    }


def _gains(shown: Sequence[Line], reward: str) -> dict[str, Any]:
    rows = [
        {"m": m, "mean": gain.mean, "low": gain.low, "high": gain.high}
        for m, line in enumerate(shown)
        if (gain := line.gains[reward]).units
    ]
    return {"reward": reward, "rows": rows}


def _front(shown: Sequence[Line], key: str) -> list[dict[str, Any]]:
    """Every method's gain and cost, and whether it is on the front of all of them."""
    costs = [_cost(line, key) for line in shown]
    gains = [line.gains[line.contest.reward] for line in shown]
    known = [m for m in range(len(shown)) if gains[m].units and math.isfinite(costs[m])]
    best = front([(costs[m], gains[m].mean) for m in known])
    return [
        {
            "m": m,
            "cost": costs[m],
            "mean": gains[m].mean,
            "low": gains[m].low,
            "high": gains[m].high,
            "best": on_front,
        }
        for m, on_front in zip(known, best, strict=True)
    ]


def _cost(line: Line, key: str) -> float:
    cost = line.cost
    return {
        "steps": cost.steps,
        "seconds": cost.seconds,
        "forward_equivalents": cost.forward_equivalents,
        "memory": cost.memory / MIB,
    }[key]


def _training(shown: Sequence[Line]) -> list[dict[str, Any]]:
    rows = []
    for m, line in enumerate(shown):
        frame = _thinned(curves.training(line.group.cells))
        rows += [{"m": m, **row} for row in _rows(frame.rename_axis("step").reset_index())]
    return rows


def _norms(shown: Sequence[Line]) -> list[dict[str, Any]]:
    """Norms above zero: their axis is logarithmic."""
    rows = []
    for m, line in enumerate(shown):
        frame = _thinned(curves.norms(line.group.cells)).rename_axis("step").reset_index()
        long = frame.melt("step", var_name="term", value_name="norm").dropna()
        rows += [{"m": m, **row} for row in long.to_dict("records") if row["norm"] > 0]
    return rows


def _thinned(frame: pd.DataFrame) -> pd.DataFrame:
    """Every n-th row, counted from the last one, so that at most MOST are left."""
    every = math.ceil(len(frame) / MOST) or 1
    return frame.iloc[(len(frame) - 1) % every :: every] if len(frame) else frame


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): float(value) for key, value in row.items()} for row in frame.to_dict("records")]
