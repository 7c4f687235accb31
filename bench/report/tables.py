"""The summary of one contest as columns of formatted texts, printed or in a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
from rich.console import Console

from bench.base.columns import NONE, Column, as_text, print_columns, texts
from bench.base.units import MIB
from bench.report.stats import Estimate
from bench.report.summary import Line

CLEAR = 3.0  # standard errors from which a gain is called clear, and is coloured


@dataclass(frozen=True)
class ColumnGroup:
    """Columns that are read together."""

    title: str
    columns: tuple[Column, ...]


def column_groups(lines: Sequence[Line]) -> tuple[Column, list[ColumnGroup]]:
    """The column of method names, and the three parts of the summary of one contest."""
    trained = lines[0].contest.reward
    others = [r for r in lines[0].gains if r != trained]
    reached = [
        estimates(f"{trained} ± SE", [line.score for line in lines], signed=False),
        *_gain_columns("gain ± SE", [line.gains[trained] for line in lines], detailed=True),
    ]
    if any(not line.group.finished for line in lines):
        reached.insert(0, texts("state", [line.group.status for line in lines], left=True))
    beside = [c for r in others for c in _gain_columns(f"{r} gain", [line.gains[r] for line in lines])]
    if any(line.diversity.units for line in lines):
        column = estimates("diversity", [line.diversity for line in lines], signed=False, se=False)
        beside.append(replace(column, tones=tuple(tone(line.diversity_change) for line in lines)))
    groups = [
        ColumnGroup("Held-out reward", tuple(reached)),
        ColumnGroup("Besides the trained reward", tuple(beside)),
        ColumnGroup("Cost; forward and backward in network evaluations", tuple(_cost_columns(lines))),
    ]
    return texts("method", [line.group.label for line in lines], left=True), [g for g in groups if g.columns]


def _gain_columns(header: str, gains: Sequence[Estimate], detailed: bool = False) -> list[Column]:
    columns = [estimates(header, gains, signed=True)]
    if detailed:
        digits = decimals(gains)
        ratios = [f"{g.in_se:+.1f}" if math.isfinite(g.in_se) else NONE for g in gains]
        spans = [
            f"{g.low:+.{digits}f} … {g.high:+.{digits}f}" if math.isfinite(g.low) else NONE for g in gains
        ]
        columns += [texts("in SE", ratios), replace(texts("95 % interval", spans), optional=True)]
    return [replace(c, tones=tuple(tone(g) for g in gains)) for c in columns]


def tone(gain: Estimate) -> int:
    """+1 for a clear gain, -1 for a clear loss, 0 for what may be chance."""
    if not abs(gain.in_se) >= CLEAR:
        return 0
    return 1 if gain.mean > 0 else -1


def _cost_columns(lines: Sequence[Line]) -> list[Column]:
    costs = [line.cost for line in lines]
    steering = [f"{line.term} {line.share:.0%}" if line.term else NONE for line in lines]
    shown = [
        texts("steps", [short_count(c.steps) for c in costs]),
        texts("forward", [short_count(c.forward) for c in costs]),
        texts("backward", [short_count(c.backward) for c in costs]),
        texts("train s", [_fixed(c.seconds, 0) for c in costs]),
        texts("peak MiB", [_fixed(c.memory / MIB, 0) for c in costs]),
        texts("steering term", steering),
    ]
    if any(math.isfinite(c.picture.seconds) for c in costs):
        shown += [
            texts("forward/picture", [short_count(c.picture.forward) for c in costs]),
            texts("backward/picture", [short_count(c.picture.backward) for c in costs]),
            texts("s/picture", [_fixed(c.picture.seconds, 1) for c in costs]),
        ]
    return shown


def estimates(header: str, found: Sequence[Estimate], signed: bool, se: bool = True) -> Column:
    """`+0.101 ± 0.008`, with as many decimals as give the smallest standard error two digits."""
    digits = decimals(found)
    cells = []
    for e in found:
        if not e.units:
            cells.append(NONE)
            continue
        text = f"{e.mean:+.{digits}f}" if signed else f"{e.mean:.{digits}f}"
        cells.append(f"{text} ± {e.se:.{digits}f}" if se and math.isfinite(e.se) else text)
    return texts(header, cells)


def decimals(found: Sequence[Estimate]) -> int:
    """How many decimals give the smallest standard error two digits."""
    errors = [e.se for e in found if math.isfinite(e.se) and e.se > 0]
    return min(4, max(0, 1 - math.floor(math.log10(min(errors))))) if errors else 3


def _fixed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else NONE


def short_count(value: float) -> str:
    """A count in few digits: `480`, `12.8k`, `3.4M`."""
    if not math.isfinite(value):
        return NONE
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / (1e3 if unit == 'k' else 1e6):.1f}{unit}"
    return f"{value:.0f}"


def print_summary(lines: Sequence[Line], console: Console) -> None:
    """Print the summary of one contest, in as many tables as the width of the terminal asks for."""
    names, groups = column_groups(lines)
    styles = ["dim" if line.is_base else "" if line.group.cells else "red" for line in lines]
    for group in groups:
        console.print(group.title, style="bold")
        print_columns(console, names, group.columns, styles)


def markdown(lines: Sequence[Line], tablefmt: str = "github") -> str:
    """All columns of one contest as one table; tablefmt: github or latex_booktabs."""
    names, parts = column_groups(lines)
    return as_text([names, *(column for part in parts for column in part.columns)], tablefmt)


def frame(lines: Sequence[Line]) -> pd.DataFrame:
    """Unformatted numbers, one line per method: report/summary.csv."""
    return pd.DataFrame([_record(line) for line in lines])


def _record(line: Line) -> dict[str, object]:
    contest, trained, step = line.contest, line.contest.reward, [c.eval_steps[-1] for c in line.group.cells]
    record: dict[str, object] = {
        "model": contest.model,
        "reward": trained,
        "method": line.group.label,
        "status": line.group.status,
        "seeds": line.score.seeds,
        "eval_step": max(step, default=None),
        "score": line.score.mean,
        "score_se": line.score.se,
    }
    for reward, gain in line.gains.items():
        name = "gain" if reward == trained else f"gain_{reward}"
        record |= {name: gain.mean, f"{name}_se": gain.se, f"{name}_in_se": gain.in_se}
        record |= {f"{name}_low": gain.low, f"{name}_high": gain.high}
    return record | {
        "diversity": line.diversity.mean,
        "diversity_change": line.diversity_change.mean,
        "diversity_change_se": line.diversity_change.se,
        "steps": line.cost.steps,
        "samples": line.cost.samples,
        "nfe_forward": line.cost.forward,
        "nfe_backward": line.cost.backward,
        "train_seconds": line.cost.seconds,
        "peak_memory_bytes": line.cost.memory,
        **{f"inference_{name}": value for name, value in line.cost.picture._asdict().items()},
        "steering_term": line.term,
        "steering_share": line.share,
    }
