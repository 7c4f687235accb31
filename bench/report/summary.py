"""One line per method: what it reached, what it cost, and which of its terms steered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.report.groups import Contest, Group, contests
from bench.report.load import CellResults, Results
from bench.report.over_optimised import Collapse, collapse
from bench.report.spent import COUNTERS, at_step
from bench.report.stats import NOTHING, Estimate, adjusted, of_both, probability_of_improvement, side_by_side
from bench.run.evaluations import DIVERSITY  # evaluated like a reward, shown in a column of its own


class Inference(NamedTuple):
    """Means over held-out pictures; nan where nothing is done to them. As in `Cost`."""

    forward: float
    backward: float
    seconds: float


@dataclass(frozen=True)
class Cost:
    """Means over the seeds that count, at the step of the evaluation shown. nan: not recorded.

    forward, backward, again: evaluations of the network, as in `bench.engine.batch.Evaluations`. seconds: of
    training alone. memory: peak bytes. picture: of one held-out picture, before it is drawn, by methods that
    work at inference.
    """

    steps: float
    samples: float
    forward: float
    backward: float
    again: float
    seconds: float
    memory: float
    picture: Inference

    @property
    def forward_equivalents(self) -> float:
        """What budgets count (`bench.run.spent`)."""
        return self.forward + 2 * self.backward


@dataclass(frozen=True)
class Line:
    """A line of the summary. gains: per scored reward (the trained one first), diversity excluded.

    over_null: mean difference in the trained reward to the null row. claim: what is claimed of the method,
    that it and the gain in the trained reward lie on the same side of zero (`of_both`), or the gain alone
    where there is no null row. p: of the claim, adjusted for all lines (Holm); nan: no claim.
    diversity_change: its mean difference to the base model. distance: mean of the pictures from the base
    model's. collapses: of every run that counts where it collapsed, or None; empty if diversity is not known.
    term, share: the gradient term with the largest share of the summed norms, and that share over all steps.
    """

    contest: Contest
    group: Group
    is_base: bool
    score: Estimate
    gains: dict[str, Estimate]
    over_null: Estimate
    claim: Estimate
    p: float
    diversity: Estimate
    diversity_change: Estimate
    distance: Estimate
    collapses: tuple[Collapse | None, ...]
    cost: Cost
    term: str
    share: float


@lru_cache(maxsize=1)  # every section of a report asks, and intervals take a while
def contest_lines(results: Results) -> list[tuple[Contest, list[Line]]]:
    """All contests of a results directory, each with its lines."""
    return [(contest, lines(contest)) for contest in contests(results)]


def lines(contest: Contest) -> list[Line]:
    """The base model, then the methods from the best down."""
    base = [_line(contest, contest.base, is_base=True)] if contest.base else []
    found = base + [_line(contest, group, is_base=False) for group in contest.ranked()]
    p = adjusted([line.claim for line in found])
    return [replace(line, p=own) for line, own in zip(found, p, strict=True)]


def line_of(results: Results, cell: CellResults) -> Line | None:
    """The line of one training alone, as if it were its method's only seed, without a claim. None if it was
    not evaluated, or is the base model's."""
    for contest in contests(results):
        for group in contest.groups:
            if any(cell is other for other in group.cells):
                return _line(contest, replace(group, cells=(cell,), left_out=()), is_base=False)
    return None


def _line(contest: Contest, group: Group, is_base: bool) -> Line:
    term, share = steering_term(group.cells)
    gains = {r: NOTHING if is_base else contest.gain(group, r) for r in contest.rewards if r != DIVERSITY}
    gain, over_null = gains[contest.reward], NOTHING if is_base else _over_null(contest, group)
    return Line(
        contest=contest,
        group=group,
        is_base=is_base,
        score=contest.score(group, contest.reward),
        gains=gains,
        over_null=over_null,
        claim=gain if contest.null is None else of_both(gain, over_null),
        p=math.nan,
        diversity=contest.score(group, DIVERSITY),
        diversity_change=NOTHING if is_base else contest.gain(group, DIVERSITY),
        distance=NOTHING if is_base else contest.distance(group),
        collapses=() if is_base else _collapses(contest, group),
        cost=cost(group.cells),
        term=term,
        share=share,
    )


def _over_null(contest: Contest, group: Group) -> Estimate:
    if contest.null is None or group is contest.null:
        return NOTHING
    return contest.difference(group, contest.null, contest.reward)


def _collapses(contest: Contest, group: Group) -> tuple[Collapse | None, ...]:
    base, base_scores = contest.base_cell, contest.base_scores(DIVERSITY)
    if base is None or base_scores is None or not group.scores(DIVERSITY):
        return ()
    return tuple(collapse(cell, base) for cell in group.cells)


def cost(cells: Sequence[CellResults]) -> Cost:
    """What it took to get to each cell's latest evaluation."""
    counted = [c for c in cells if c.eval_steps and not (c.metrics.empty and c.inference.empty)]
    last = [at_step(cell, cell.eval_steps[-1]) for cell in counted]
    means = {name: _mean([counters[name] for counters in last]) for name in COUNTERS}
    own = [_mean([_mean(c.inference[name].tolist()) for c in counted]) for name in Inference._fields]
    return Cost(*(means[name] for name in COUNTERS), picture=Inference(*own))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(np.asarray(values, dtype=float))) if values else math.nan


def term_norms(cell: CellResults) -> pd.DataFrame:
    """Norm of every gradient term: index step, one column per term."""
    records = {
        int(step): {name: term["norm"] for name, term in terms.items()}
        for step, terms in zip(cell.metrics["step"], cell.metrics["terms"], strict=True)
        if isinstance(terms, dict)
    }
    return pd.DataFrame.from_dict(records, orient="index", dtype=float).sort_index()


def steering_term(cells: Sequence[CellResults]) -> tuple[str, float]:
    """The term with the largest mean share of a step's summed norms, and that share; "" and nan if none."""
    frames = [frame for frame in map(term_norms, cells) if not frame.empty]
    if not frames:
        return "", math.nan
    norms = pd.concat(frames).fillna(0.0).sort_index(axis=1)
    values = norms.to_numpy(dtype=float)
    values = values[values.sum(axis=1) > 0]
    if not len(values):
        return "", math.nan
    shares = (values / values.sum(axis=1, keepdims=True)).mean(axis=0)
    return str(norms.columns[shares.argmax()]), float(shares.max())


def comparison(contest: Contest) -> pd.DataFrame:
    """Probability that the row's picture beats the column's (same prompt and noise) in the trained reward."""
    tables = {}
    for group in [*([contest.base] if contest.base else []), *contest.ranked()]:
        runs = group.scores(contest.reward)
        if runs:
            tables[group.label] = side_by_side(runs)
    pairs = [
        {"method": a, "other": b, "probability": e.mean, "se": e.se, "low": e.low, "high": e.high}
        for a in tables
        for b in tables
        if a != b
        for e in [probability_of_improvement(tables[a], tables[b])]
    ]
    return pd.DataFrame(pairs, columns=["method", "other", "probability", "se", "low", "high"])
