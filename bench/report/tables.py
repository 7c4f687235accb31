"""The summary as text: columns of formatted cells, and the files and terminal tables made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
from rich.console import Console

from bench.base.columns import NONE, Column, as_text, print_table, texts
from bench.report.stats import Estimate
from bench.report.summary import Row

PER_PICTURE = (
    " Per picture: what a method that trains nothing does to each held-out picture before it is drawn; every "
    "further picture costs it again."
)
CLEAR = 3.0  # standard errors from which a gain is called clear, and is coloured


@dataclass(frozen=True)
class Section:
    """Columns that are read together."""

    title: str
    columns: tuple[Column, ...]


def sections(rows: Sequence[Row]) -> tuple[Column, list[Section]]:
    """The column of method names, and the three parts of the summary of one contest."""
    trained = rows[0].contest.reward
    others = [r for r in rows[0].gains if r != trained]
    reached = [
        estimates(f"{trained} ± SE", [row.score for row in rows], signed=False),
        *_gain_columns("gain ± SE", [row.gains[trained] for row in rows], detailed=True),
    ]
    if any(not row.group.finished for row in rows):
        reached.insert(0, texts("state", [row.group.status for row in rows], left=True))
    beside = [c for r in others for c in _gain_columns(f"{r} gain", [row.gains[r] for row in rows])]
    if any(row.diversity.units for row in rows):
        column = estimates("diversity", [row.diversity for row in rows], signed=False, se=False)
        beside.append(replace(column, tones=tuple(_tone(row.diversity_change) for row in rows)))
    parts = [Section("Held-out reward", tuple(reached)), Section("Besides the trained reward", tuple(beside))]
    parts.append(Section("Cost; forward and backward in network evaluations", tuple(_cost_columns(rows))))
    return texts("method", [row.group.label for row in rows], left=True), [s for s in parts if s.columns]


def _gain_columns(header: str, gains: Sequence[Estimate], detailed: bool = False) -> list[Column]:
    columns = [estimates(header, gains, signed=True)]
    if detailed:
        digits = _decimals(gains)
        ratios = [f"{g.in_se:+.1f}" if math.isfinite(g.in_se) else NONE for g in gains]
        spans = [
            f"{g.low:+.{digits}f} … {g.high:+.{digits}f}" if math.isfinite(g.low) else NONE for g in gains
        ]
        columns += [texts("in SE", ratios), replace(texts("95 % interval", spans), optional=True)]
    return [replace(c, tones=tuple(_tone(g) for g in gains)) for c in columns]


def _tone(gain: Estimate) -> int:
    if not abs(gain.in_se) >= CLEAR:
        return 0
    return 1 if gain.mean > 0 else -1


def _cost_columns(rows: Sequence[Row]) -> list[Column]:
    costs = [row.cost for row in rows]
    steering = [f"{row.term} {row.share:.0%}" if row.term else NONE for row in rows]
    shown = [
        texts("steps", [short_count(c.steps) for c in costs]),
        texts("forward", [short_count(c.forward) for c in costs]),
        texts("backward", [short_count(c.backward) for c in costs]),
        texts("train s", [_fixed(c.seconds, 0) for c in costs]),
        texts("peak MiB", [_fixed(c.memory / 2**20, 0) for c in costs]),
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
    digits = _decimals(found)
    cells = []
    for e in found:
        if not e.units:
            cells.append(NONE)
            continue
        text = f"{e.mean:+.{digits}f}" if signed else f"{e.mean:.{digits}f}"
        cells.append(f"{text} ± {e.se:.{digits}f}" if se and math.isfinite(e.se) else text)
    return texts(header, cells)


def _decimals(found: Sequence[Estimate]) -> int:
    errors = [e.se for e in found if math.isfinite(e.se) and e.se > 0]
    return min(4, max(0, 1 - math.floor(math.log10(min(errors))))) if errors else 3


def _fixed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else NONE


def short_count(value: float) -> str:
    """`480`, `12.8k`, `3.4M`."""
    if not math.isfinite(value):
        return NONE
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / (1e3 if unit == 'k' else 1e6):.1f}{unit}"
    return f"{value:.0f}"


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the summary of one contest, in as many tables as the width of the terminal asks for."""
    names, parts = sections(rows)
    styles = ["dim" if row.is_base else ("red" if not row.group.cells else "") for row in rows]
    for part in parts:
        console.print(part.title, style="bold")
        print_table(console, names, part.columns, styles)


def markdown(rows: Sequence[Row], tablefmt: str = "github") -> str:
    """All columns of one contest as one table; tablefmt: github or latex_booktabs."""
    names, parts = sections(rows)
    return as_text([names, *(column for part in parts for column in part.columns)], tablefmt)


def headline(rows: Sequence[Row]) -> str:
    """The result in a sentence."""
    trained = rows[0].contest.reward
    methods = [row for row in rows if not row.is_base]
    measured = [row for row in methods if row.gains[trained].units]
    if not methods:
        return "Only the untuned model was evaluated."
    if not measured:
        return "No method has an evaluation to compare with the base model's yet."
    clear = [row for row in measured if _tone(row.gains[trained]) > 0]
    worse = [row for row in measured if _tone(row.gains[trained]) < 0]
    text = f"{len(clear)} of {len(methods)} methods raise held-out {trained} by more than {CLEAR:g} SE"
    if worse:
        text += f", {len(worse)} lower{'s' * (len(worse) == 1)} it by more than that"
    best = max(measured, key=lambda row: row.gains[trained].mean)
    gain = best.gains[trained]
    digits = _decimals([gain])
    return f"{text}. Largest gain: {best.group.label}, {gain.mean:+.{digits}f} ± {gain.se:.{digits}f}."


def legend(rows: Sequence[Row]) -> str:
    """How to read the table."""
    units = {row.score.units for row in rows if row.score.units}
    seeds = {row.score.seeds for row in rows if row.score.seeds}
    over = (
        f"{_range(units)} held-out prompts and {_range(seeds)} seed{'s' * (seeds != {1})}"
        if units
        else "no pictures"
    )
    return (
        f"Over {over}. Gain: mean difference to the base model on the same prompts and starting noise; "
        "SE: its standard error, prompts (and seeds) being the units; in SE: gain / SE, coloured from "
        f"{CLEAR:g} on. Other rewards were scored, not trained on. Diversity: higher is more varied. "
        "Cost: of training alone; forward and backward count network evaluations, each sample for itself; "
        "steering term: the largest term of the gradient and its mean share of the summed norms."
        + (PER_PICTURE if any(math.isfinite(row.cost.picture.seconds) for row in rows) else "")
    )


def _range(values: set[int]) -> str:
    return "–".join(str(v) for v in sorted({min(values), max(values)}))


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Unformatted numbers, one line per method: report/summary.csv."""
    return pd.DataFrame([_record(row) for row in rows])


def _record(row: Row) -> dict[str, object]:
    contest, trained, step = row.contest, row.contest.reward, [c.eval_steps[-1] for c in row.group.cells]
    record: dict[str, object] = {
        "model": contest.model,
        "reward": trained,
        "method": row.group.label,
        "status": row.group.status,
        "seeds": row.score.seeds,
        "eval_step": max(step, default=None),
        "score": row.score.mean,
        "score_se": row.score.se,
    }
    for reward, gain in row.gains.items():
        name = "gain" if reward == trained else f"gain_{reward}"
        record |= {name: gain.mean, f"{name}_se": gain.se, f"{name}_in_se": gain.in_se}
        record |= {f"{name}_low": gain.low, f"{name}_high": gain.high}
    return record | {
        "diversity": row.diversity.mean,
        "diversity_change": row.diversity_change.mean,
        "diversity_change_se": row.diversity_change.se,
        "steps": row.cost.steps,
        "samples": row.cost.samples,
        "nfe_forward": row.cost.forward,
        "nfe_backward": row.cost.backward,
        "train_seconds": row.cost.seconds,
        "peak_memory_bytes": row.cost.memory,
        **{f"inference_{name}": value for name, value in row.cost.picture._asdict().items()},
        "steering_term": row.term,
        "steering_share": row.share,
    }
