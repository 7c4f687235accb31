"""The summary of one contest in sentences: its result, and how to read its table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.report.over_optimised import COLLAPSED
from bench.report.stats import LEAST_UNITS
from bench.report.summary import Line
from bench.report.tables import CLEAR, collapsed, decimals, verdict

PER_PICTURE = (
    " Per picture: what a method that trains nothing does to each held-out picture before it is drawn; every "
    "further picture costs it again."
)
FROM_BASE = (
    " Distance: of a picture from the base model's of the same prompt and noise, 0 for the same picture."
)
COLLAPSE = (
    f" Collapse: runs whose diversity stays below {COLLAPSED:.0%} of the base model's up to the last "
    "evaluation, and from which step on (the median of these runs)."
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
    best = max(measured, key=lambda line: line.gains[trained].mean)
    gain = best.gains[trained]
    digits = decimals([gain])
    largest = f"Largest gain: {best.group.label}, {gain.mean:+.{digits}f} ± {gain.se:.{digits}f}"
    return f"{_counted(lines, measured)} {largest}{'' if gain.seeds > 1 else ' over prompts only'}."


def _counted(lines: Sequence[Line], measured: Sequence[Line]) -> str:
    """What is claimed of how many methods."""
    contest = lines[0].contest
    claimed = [line for line in measured if math.isfinite(line.p)]
    if not claimed:
        return (
            "No claim is made of any method: that takes two seeds or more of each"
            + ("" if contest.null is None else f", {contest.null.label} included")
            + " (--seeds 0,1,2)."
        )
    above, below = (sum(verdict(line) == sign for line in claimed) for sign in (1, -1))
    than = "the base model" if contest.null is None else f"both the base model and {contest.null.label}"
    text = f"{above} of {len(claimed)} methods raise held-out {contest.reward} above that of {than}"
    if below:
        both = "" if contest.null is None else " both"
        text += f", {below} {'lowers' if below == 1 else 'lower'} it below{both}"
    text += (
        f" (p < {CLEAR:g} for all {len(claimed)} claims together)."
        if len(claimed) > 1
        else f" (p < {CLEAR:g})."
    )
    return text if contest.null is not None else f"{text} There is no null row (random-direction)."


def legend(lines: Sequence[Line]) -> str:
    """How to read the table."""
    units = {line.score.units for line in lines if line.score.units}
    # Of methods: the base model, which may be all there is, is the same whatever the seed.
    seeds = {line.score.seeds for line in lines if line.score.seeds and not line.is_base} or {1}
    over = (
        f"{_range(units)} held-out prompts and {_range(seeds)} {'seed' if seeds == {1} else 'seeds'}"
        if units
        else "no pictures"
    )
    return (
        f"Over {over}. Gain: mean difference to the base model on the same prompts and starting noise; "
        "SE: its standard error, prompts and seeds being the units; with one seed over prompts only, which "
        "says nothing about another run. p: of the claim that a method lies above (or below) both the base "
        "model and the null row, the larger one of the two p values (of the gain alone without a null row), "
        f"adjusted for the number of methods; coloured below {CLEAR:g}. Other rewards were "
        "scored, not trained on; their gains over the base model are coloured where they are clear, adjusted "
        "for all of them. Diversity: higher is more varied."
        + (FROM_BASE if any(line.distance.units for line in lines) else "")
        + (COLLAPSE if any(map(collapsed, lines)) else "")
        + " Cost: of training alone; forwards: of the "
        "network, each sample for itself, a backward counting as two (forward equivalents); run again: "
        "forwards repeated to save memory, which are not among them; "
        "steering term: the largest term of the gradient and its mean share of the summed norms."
        + (PER_PICTURE if any(math.isfinite(line.cost.picture.seconds) for line in lines) else "")
    )


def _range(values: set[int]) -> str:
    return "–".join(str(v) for v in sorted({min(values), max(values)}))
