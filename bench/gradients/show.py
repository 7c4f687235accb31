"""The table of profiles on a terminal and in Markdown."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from bench.gradients.table import Row
from bench.gradients.verdict import Bias, Verdict

STYLES = {Verdict.UNBIASED: "green", Verdict.BIASED: "yellow", Verdict.UNDECIDED: "dim"}
HEADERS = (
    "method",
    "bias (95 %)",
    "verdict",
    "deployed",
    "variance",
    "cosine",
    "fwd",
    "bwd",
    "s",
    "MB",
    "variance × s",
)
WIDE = 130  # columns of a terminal that take the whole table
NARROW = ([0, 1, 2, 3], [0, 4, 5, 6, 7, 8, 9, 10])
LEFT = (0, 1, 2)
NOTE = (
    "bias, deployed: |E ĝ − g| / |g| against the method's own objective and against the deployed sampler (no "
    "noise). variance: total variance of a batch gradient / |g|². cosine: of one batch gradient with g. fwd, "
    "bwd: network evaluations per gradient. MB: peak memory above idle. variance × s: seconds to reach a "
    "signal to noise ratio of 1."
)


def show(table: list[Row], console: Console) -> None:
    """One table per θ and seed."""
    for at, seed in dict.fromkeys((row.at, row.config.seed) for row in table):
        group = [row for row in table if (row.at, row.config.seed) == (at, seed)]
        first = group[0].config
        title = f"{first.model.name}, {first.reward.name}, batch {first.batch}, at {at}, seed {seed}"
        for columns in [range(len(HEADERS))] if console.width >= WIDE else NARROW:
            out = Table(title=title, title_justify="left", title_style="bold", padding=(0, 1), box=None)
            for k in columns:
                out.add_column(HEADERS[k], justify="left" if k in LEFT else "right", overflow="fold")
            for row in group:
                texts = cells(row)
                out.add_row(*(texts[k] for k in columns), style=STYLES[row.own.verdict])
            console.print(out)
            console.print()
    console.print(NOTE, style="dim", highlight=False)


def markdown(group: list[Row]) -> str:
    """The same as a Markdown table."""
    lines = [" | ".join(HEADERS), " | ".join("---" for _ in HEADERS)]
    lines += [" | ".join(cells(row)) for row in group]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def cells(row: Row) -> list[str]:
    """The texts of a row, in the order of HEADERS."""
    moments, draws = row.moments, max(row.moments.draws, 1)
    memory = (moments.peak_memory - moments.idle_memory) / 2**20
    return [
        row.config.label,
        interval(row.own),
        verdict(row),
        number(row.deployed.relative.value),
        number(row.noise.relative),
        number(row.own.cosine.value),
        number(moments.forward / draws),
        number(moments.backward / draws),
        number(row.seconds),
        f"{memory:.0f}",
        number(row.noise.relative * row.seconds),
    ]


def interval(bias: Bias) -> str:
    """`0.62 (0.58–0.66)`."""
    r = bias.relative
    if math.isnan(r.value):
        return "?"
    return f"{number(r.value)} ({number(r.low)}–{number(r.high)})"


def verdict(row: Row) -> str:
    """The word, and of an undecided one how many draws would decide."""
    if row.own.verdict is not Verdict.UNDECIDED:
        return str(row.own.verdict)
    if math.isnan(row.own.needed):
        return "undecided"
    return f"undecided ({number(row.own.needed)} draws; has {row.moments.draws})"


def number(value: float) -> str:
    """Two or three digits: 0.034, 1.2, 340, 5.6e7."""
    if math.isnan(value):
        return "?"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e5 or size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    if size >= 100:
        return f"{value:.0f}"
    return f"{value:.2g}" if size < 10 else f"{value:.3g}"
