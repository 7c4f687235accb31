"""Figures of the RLR paper, whose numbers are not published: ours beside what the paper reads off its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.base.columns import Column, texts
from bench.report.load import Results
from bench.report.paper_cells import Candidate, candidates, made_for, model_of
from bench.report.paper_tables import FIGURES, PaperFigure
from bench.report.stats import NOTHING, by_picture, estimate, side_by_side
from bench.report.tables import estimates

SHOWN = 6  # evaluations


@dataclass(frozen=True)
class FigureTable:
    """Held-out means by method and evaluation."""

    figure: PaperFigure
    what: str
    names: Column
    columns: tuple[Column, ...]

    @property
    def title(self) -> str:
        """`Figure 5: reward against steps, aes on sd14`."""
        return f"{self.figure.name}: {self.figure.title}, {self.what}"

    @property
    def remark(self) -> str:
        """What the paper says of its own."""
        return (
            f"Ours: held-out mean ± SE at an evaluation. The paper reads off its figure: {self.figure.claim} "
            "It publishes no numbers of it, so there is no difference."
        )


def figure_tables(results: Results) -> list[FigureTable]:
    """A table for each figure, reward and model that cells were made for."""
    wanted, found = made_for(results.cells), candidates(results)
    return [
        _table(figure, what, some)
        for figure in FIGURES
        if figure.experiment in wanted
        for what, some in _by_reward(figure, found).items()
    ]


def _by_reward(figure: PaperFigure, found: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    """Finished groups of the figure's methods that were made for it, by reward and model."""
    some: dict[str, list[Candidate]] = {}
    for one in found:
        made = figure.experiment in made_for(one.group.cells)
        if made and one.finished and one.group.method in figure.methods:
            some.setdefault(f"{one.contest.reward} on {model_of(one.cell)}", []).append(one)
    return some


def _table(figure: PaperFigure, what: str, found: Sequence[Candidate]) -> FigureTable:
    steps = sorted({step for one in found for cell in one.group.cells for step in cell.eval_steps})
    if len(steps) > SHOWN:
        steps = [steps[round(n * (len(steps) - 1) / (SHOWN - 1))] for n in range(SHOWN)]
    names = texts("at step", [one.group.label for one in found], left=True)
    return FigureTable(figure, what, names, tuple(_column(found, step) for step in steps))


def _column(found: Sequence[Candidate], step: int) -> Column:
    """Means at one evaluation, over the seeds that were evaluated there."""
    means = []
    for one in found:
        scored = [cell.scored(one.contest.reward, step) for cell in one.group.cells]
        runs = [by_picture(rows) for rows in scored if not rows.empty]
        means.append(estimate(side_by_side(runs), interval=False) if runs else NOTHING)
    return estimates(str(step), means, signed=False)
