"""The table of profiles on a terminal and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from bench.base.units import MIB
from bench.measure.gradients.probe import MARGIN
from bench.measure.gradients.profiles import ProfileRow
from bench.measure.gradients.verdict import ROUNDING, Bias, Verdict

STYLES = {Verdict.UNBIASED: "green", Verdict.BIASED: "yellow", Verdict.UNDECIDED: "dim"}
WIDE = 130  # columns of a terminal that take the whole table
NARROW = ([0, 1, 2, 3, 4], [0, 5, 6, 7, 8, 9, 10, 11])
LEFT = (0, 1, 2)
NOTE = (
    "bias: |E ĝ − g| / |g| against the exact gradient of the method's own objective. verdict: unbiased where "
    f"the interval ends below {MARGIN}, biased where it begins above {ROUNDING}. draws: batch gradients; of "
    "those that would decide. All else refers to g of the deployed sampler, without noise. deployed: bias "
    "against it. variance: total variance of a batch gradient / |g|². cosine: of a batch gradient with g. "
    "fwd, bwd: network evaluations per gradient. MB: peak memory above idle. variance × s: seconds until "
    "noise and gradient are equally large. ?: not known yet."
)


def print_profiles(tables: Sequence[Sequence[ProfileRow]], console: Console) -> None:
    """Print the tables, each in two pieces on a narrow terminal, and how to read them."""
    for group in tables:
        for columns in [range(len(HEADERS))] if console.width >= WIDE else NARROW:
            out = Table(
                title=title(group), title_justify="left", title_style="bold", padding=(0, 1), box=None
            )
            for k in columns:
                out.add_column(HEADERS[k], justify="left" if k in LEFT else "right", overflow="fold")
            for row in group:
                texts = cells(row)
                out.add_row(*(texts[k] for k in columns), style=STYLES[row.own.verdict])
            console.print(out)
            console.print()
    console.print(NOTE, style="dim", highlight=False)


def title(group: Sequence[ProfileRow]) -> str:
    """What all rows of a table share."""
    first = group[0].config
    return (
        f"{first.model.name}, {first.reward.name}, batch {first.batch}, at {group[0].at}, seed {first.seed}"
    )


def markdown(group: Sequence[ProfileRow]) -> str:
    """The same as a Markdown table."""
    lines = [" | ".join(HEADERS), " | ".join("---" for _ in HEADERS)]
    lines += [" | ".join(cells(row)) for row in group]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def cells(row: ProfileRow) -> list[str]:
    """The texts of a row, in the order of HEADERS."""
    return [text(row) for text in COLUMNS.values()]


def interval(bias: Bias) -> str:
    """`0.62 (0.58–0.66)`; `?` while it may be anything."""
    r = bias.relative
    if math.isnan(r.value) or (r.low <= 0 and math.isinf(r.high)):
        return "?"
    return f"{number(r.value)} ({number(r.low)}–{number(r.high)})"


def verdict(row: ProfileRow) -> str:
    """The word; with a note where the method says of itself that it is unbiased, and is not."""
    if row.own.verdict is Verdict.BIASED and not row.config.biased:
        return "biased, declared unbiased"
    return str(row.own.verdict)


def count(row: ProfileRow) -> str:
    """`200`, or of an undecided one `200 of 5582`."""
    draws = str(row.moments.draws)
    if row.own.verdict is not Verdict.UNDECIDED:
        return draws
    return f"{draws} of {number(row.own.needed)}" if math.isfinite(row.own.needed) else f"{draws} of ?"


def number(value: float) -> str:
    """Two or three digits: 0.034, 1.2, 340, 5.6e7."""
    if math.isnan(value):
        return "?"
    if math.isinf(value):
        return "∞"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e5 or size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    if size >= 100:
        return f"{value:.0f}"
    return f"{value:.2g}" if size < 10 else f"{value:.3g}"


def _mean(total: float, row: ProfileRow) -> str:
    return number(total / max(row.moments.draws, 1))


COLUMNS: dict[str, Callable[[ProfileRow], str]] = {
    "method": lambda row: row.label,
    "bias (95 %)": lambda row: interval(row.own),
    "verdict": verdict,
    "draws": count,
    "deployed": lambda row: "?" if interval(row.deployed) == "?" else number(row.deployed.relative.value),
    "variance": lambda row: number(row.variance),
    "cosine": lambda row: number(row.deployed.cosine.value),
    "fwd": lambda row: _mean(row.moments.forward, row),
    "bwd": lambda row: _mean(row.moments.backward, row),
    "s": lambda row: number(row.seconds),
    "MB": lambda row: f"{(row.moments.peak_memory - row.moments.idle_memory) / MIB:.0f}",
    "variance × s": lambda row: number(row.variance * row.seconds),
}
HEADERS = tuple(COLUMNS)
