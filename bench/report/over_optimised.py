"""How far a training has gone from the base model, and where its pictures collapse.

Both need the cell of the base model that draws the same pictures: same prompts, same starting noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import NamedTuple, cast

import pandas as pd

from bench.report.load import EVALS, CellResults
from bench.report.spent import at_step, forward_equivalents
from bench.run import features
from bench.run.evaluations import DIVERSITY

DISTANCE = "distance"
COLLAPSED = 0.5  # share of the base model's diversity below which a model counts as collapsed


class Collapse(NamedTuple):
    """The evaluation from which on a run's pictures were collapsed, and what it had spent there."""

    step: int
    forward_equivalents: float


def distances(cell: CellResults, base: CellResults, step: int) -> pd.DataFrame:
    """How far the pictures of an evaluation lie from the base model's of the same prompt and noise.

    One row per picture with the columns of eval.jsonl: step, prompt, image, reward (`distance`), score,
    features. score: `bench.run.features.distance`, 0 for equal pictures. No rows where one of the two cells
    has no features, or theirs are not the same ones.
    """
    nothing = pd.DataFrame(columns=[*EVALS, "features"])
    if step not in cell.features or not base.features:
        return nothing
    origin = max(base.features)
    ours, theirs = features.read(cell.features[step]), features.read(base.features[origin])
    if ours.name != theirs.name or ours.values.shape[1] != theirs.values.shape[1]:
        return nothing
    pictures = cell.pictures_at(step)
    place = base.pictures_at(origin).get_indexer(pictures)
    common = place >= 0
    found = pictures.to_frame(index=False)[common]
    score = features.distance(ours.values[common], theirs.values[place[common]], ours.name)
    marked = found.assign(step=step, reward=DISTANCE, score=score, features=ours.name)
    return cast(pd.DataFrame, marked[nothing.columns])


def collapse(cell: CellResults, base: CellResults) -> Collapse | None:
    """Where the run collapsed, as far as it has got; None if it did not, or diversity was not measured."""
    ours, theirs = _diversity(cell), _diversity(base)
    step = collapse_step(ours, theirs[max(theirs)]) if theirs else None
    return None if step is None else Collapse(step, forward_equivalents(at_step(cell, step)))


def collapse_step(diversity: Mapping[int, float], base: float) -> int | None:
    """The first evaluation from which on to the last one diversity is below COLLAPSED times the base model's.

    diversity: of every evaluation of one run, by step. None: the last one is not below it, or there is none.
    """
    found = None
    for step in sorted(diversity, reverse=True):
        if not diversity[step] < COLLAPSED * base:
            break
        found = step
    return found


def _diversity(cell: CellResults) -> dict[int, float]:
    """Mean over pictures at each evaluation."""
    scores = {step: cell.scored(DIVERSITY, step)["score"].tolist() for step in cell.eval_steps}
    return {step: fmean(some) for step, some in scores.items() if some}
