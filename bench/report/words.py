"""The summary of one contest in sentences: its result, and how to read its table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.report.stats import LEAST_UNITS
from bench.report.summary import Line
from bench.report.tables import CLEAR, decimals, tone

PER_PICTURE = (
    " Per picture: what a method that trains nothing does to each held-out picture before it is drawn; every "
    "further picture costs it again."
)


def headline(lines: Sequence[Line]) -> str:
    """The result in a sentence."""
    trained = lines[0].contest.reward
    methods = [line for line in lines if not line.is_base]
    measured = [line for line in methods if line.gains[trained].units]
    if not methods:
        return "Only the untuned model was evaluated."
    few = max((line.gains[trained].units for line in measured), default=0)
    if 0 < few < LEAST_UNITS:
        return (
            f"Evaluated on {few} held-out prompt{'' if few == 1 else 's'} or pictures: too few to tell gains "
            f"from chance. Take {LEAST_UNITS} at the very least, better 20: eval.prompts sets them."
        )
    if not measured:
        return "No method has an evaluation to compare with the base model's yet."
    clear = [line for line in measured if tone(line.gains[trained]) > 0]
    worse = [line for line in measured if tone(line.gains[trained]) < 0]
    text = f"{len(clear)} of {len(methods)} methods raise held-out {trained} by more than {CLEAR:g} SE"
    if worse:
        text += f", {len(worse)} {'lowers' if len(worse) == 1 else 'lower'} it by more than that"
    best = max(measured, key=lambda line: line.gains[trained].mean)
    gain = best.gains[trained]
    digits = decimals([gain])
    return f"{text}. Largest gain: {best.group.label}, {gain.mean:+.{digits}f} ± {gain.se:.{digits}f}."


def legend(lines: Sequence[Line]) -> str:
    """How to read the table."""
    units = {line.score.units for line in lines if line.score.units}
    seeds = {line.score.seeds for line in lines if line.score.seeds}
    over = (
        f"{_range(units)} held-out prompts and {_range(seeds)} {'seed' if seeds == {1} else 'seeds'}"
        if units
        else "no pictures"
    )
    return (
        f"Over {over}. Gain: mean difference to the base model on the same prompts and starting noise; "
        "SE: its standard error, prompts (and seeds) being the units; in SE: gain / SE, coloured from "
        f"{CLEAR:g} on. Other rewards were scored, not trained on. Diversity: higher is more varied. "
        "Cost: of training alone; forward and backward count network evaluations, each sample for itself; "
        "steering term: the largest term of the gradient and its mean share of the summed norms."
        + (PER_PICTURE if any(math.isfinite(line.cost.picture.seconds) for line in lines) else "")
    )


def _range(values: set[int]) -> str:
    return "–".join(str(v) for v in sorted({min(values), max(values)}))
