"""The summary of one contest as columns of formatted texts, printed or in a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import pandas as pd
from rich.console import Console

from bench.base.columns import NONE, Column, as_text, print_columns, texts
from bench.base.units import MIB
from bench.report.over_optimised import Collapse
from bench.report.stats import Estimate, adjusted
from bench.report.summary import Line

CLEAR = 0.05  # p below which a difference is called one, and is coloured


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
        *_trained_columns(lines),
    ]
    if any(not line.group.finished for line in lines):
        reached.insert(0, texts("state", [line.group.status for line in lines], left=True))
    gains = [[line.gains[r] for line in lines] for r in others]
    beside = [
        replace(estimates(f"{reward} gain", found, signed=True), tones=tones)
        for reward, found, tones in zip(others, gains, _tones(gains), strict=True)
    ]
    if any(line.diversity.units for line in lines):
        beside.append(estimates("diversity", [line.diversity for line in lines], signed=False, se=False))
    if any(line.distance.units for line in lines):
        beside.append(estimates("distance", [line.distance for line in lines], signed=False))
    if any(map(collapsed, lines)):
        beside.append(texts("collapse", [_collapse(line) for line in lines]))
    groups = [
        ColumnGroup("Held-out reward", tuple(reached)),
        ColumnGroup("Besides the trained reward", tuple(beside)),
        ColumnGroup("Cost of training", tuple(_cost_columns(lines))),
    ]
    return texts("method", [line.group.label for line in lines], left=True), [g for g in groups if g.columns]


def collapsed(line: Line) -> list[Collapse]:
    """The collapses of those of its runs that did."""
    return [found for found in line.collapses if found is not None]


def _collapse(line: Line) -> str:
    """`2 of 3 runs, from 40`: the median step."""
    found, runs = collapsed(line), len(line.collapses)
    if not runs:
        return NONE
    text = f"{len(found)} of {runs} run{'' if runs == 1 else 's'}"
    return f"{text}, from {median(c.step for c in found):g}" if found else text


def _trained_columns(lines: Sequence[Line]) -> list[Column]:
    """The gain in the trained reward, and what is claimed of it."""
    gains, null = [line.gains[lines[0].contest.reward] for line in lines], lines[0].contest.null
    of = "" if any(gain.seeds > 1 for gain in gains) else " (prompts only)"
    found = [replace(estimates(f"gain ± SE{of}", gains, signed=True), tones=tuple(map(verdict, lines)))]
    if null is not None:
        found.append(estimates("over null", [line.over_null for line in lines], signed=True))
    if any(line.claim.claims for line in lines):
        found.append(texts("p", [probability(line.p) for line in lines]))
    return [*found, replace(intervals(f"95 % interval{of}", gains), optional=True)]


def intervals(header: str, found: Sequence[Estimate]) -> Column:
    """`+0.085 … +0.117`, with the decimals of `estimates`."""
    digits = decimals(found)
    spans = [f"{e.low:+.{digits}f} … {e.high:+.{digits}f}" if math.isfinite(e.low) else NONE for e in found]
    return texts(header, spans)


def probability(p: float) -> str:
    """A p value; – where nothing is claimed."""
    return NONE if not math.isfinite(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def verdict(line: Line) -> int:
    """+1 for a gain that is claimed, -1 for a loss, 0 for what may be chance or one run's luck."""
    return tone(line.claim, line.p)


def _tones(columns: Sequence[Sequence[Estimate]]) -> list[tuple[int, ...]]:
    """The tones of columns of differences, all of which are one family of claims (Holm)."""
    p = iter(adjusted([e for found in columns for e in found]))
    return [tuple(tone(e, next(p)) for e in found) for found in columns]


def tone(found: Estimate, p: float | None = None) -> int:
    """+1 for a mean above zero, -1 below, 0 for what may be chance or one run's luck. p: the adjusted one."""
    if not (found.claims and (found.p if p is None else p) < CLEAR):
        return 0
    return 1 if found.mean > 0 else -1


def _cost_columns(lines: Sequence[Line]) -> list[Column]:
    costs = [line.cost for line in lines]
    steering = [f"{line.term} {line.share:.0%}" if line.term else NONE for line in lines]
    shown = [
        texts("steps", [short_count(c.steps) for c in costs]),
        texts("forwards", [short_count(c.forward_equivalents) for c in costs]),
        texts("run again", [short_count(c.again) for c in costs]),
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


def estimates(
    header: str, found: Sequence[Estimate], signed: bool, se: bool = True, digits: int | None = None
) -> Column:
    """`+0.101 ± 0.008`. digits: decimals; as many as give the smallest standard error two digits if None."""
    digits = decimals(found) if digits is None else digits
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
    fallen = collapsed(line)
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
        record |= {name: gain.mean, f"{name}_se": gain.se, f"{name}_p": gain.p}
        record |= {f"{name}_low": gain.low, f"{name}_high": gain.high}
    return record | {
        "over_null": line.over_null.mean,
        "over_null_se": line.over_null.se,
        "over_null_p": line.over_null.p,
        "claim_p_holm": line.p,
        "diversity": line.diversity.mean,
        "diversity_change": line.diversity_change.mean,
        "diversity_change_se": line.diversity_change.se,
        "distance": line.distance.mean,
        "distance_se": line.distance.se,
        "collapsed": len(fallen) if line.collapses else None,
        "collapse_step": median(c.step for c in fallen) if fallen else None,
        "collapse_forward_equivalents": median(c.forward_equivalents for c in fallen) if fallen else None,
        "steps": line.cost.steps,
        "samples": line.cost.samples,
        "nfe_forward": line.cost.forward,
        "nfe_backward": line.cost.backward,
        "nfe_again": line.cost.again,
        "forward_equivalents": line.cost.forward_equivalents,
        "train_seconds": line.cost.seconds,
        "peak_memory_bytes": line.cost.memory,
        **{f"inference_{name}": value for name, value in line.cost.picture._asdict().items()},
        "steering_term": line.term,
        "steering_share": line.share,
    }
