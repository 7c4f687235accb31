"""What a results directory holds, as pandas tables: `bench.load`. Read by the report's own reader."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bench.base.errors import BenchError

if TYPE_CHECKING:
    import pandas as pd

    from bench.report.load import Results as Loaded
    from bench.run.experiment import Ended, PlannedRun


@dataclass(frozen=True, eq=False, repr=False)
class Results:
    """A results directory as it was when it was read. docs/python.md lists the columns of every table.

    loaded: what the report reads. Tables are made when they are asked for, and kept.
    """

    loaded: Loaded

    @property
    def path(self) -> Path:
        """The directory."""
        return self.loaded.path

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be read and was left out, a sentence each."""
        return self.loaded.notes

    @cached_property
    def cells(self) -> pd.DataFrame:
        """A row per cell: what it is, how far it is, and why it is not done."""
        from bench.api import tables

        return tables.cells(self.loaded)

    @property
    def unfinished(self) -> pd.DataFrame:
        """The rows of `cells` that are not done: failed, stopped, running, or not started."""
        return self.cells.loc[self.cells["state"] != "done"]

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """A row per cell and optimizer step."""
        from bench.api import tables

        return tables.metrics(self.loaded)

    @cached_property
    def terms(self) -> pd.DataFrame:
        """A row per cell, optimizer step and term of the gradient."""
        from bench.api import tables

        return tables.terms(self.loaded)

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """A row per cell, evaluation, held-out picture and reward."""
        from bench.api import tables

        return tables.evaluations(self.loaded)

    @cached_property
    def inference(self) -> pd.DataFrame:
        """A row per cell and held-out picture, of methods that train nothing."""
        from bench.api import tables

        return tables.inference(self.loaded)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A row per contest and method, the base model's first: the numbers of the report's tables."""
        from bench.api import tables

        return tables.summary(self.loaded)

    @cached_property
    def gradients(self) -> pd.DataFrame:
        """A row per gradient profile; without rows where none was measured. Imports torch."""
        from bench.api import tables

        return tables.gradients(self.path)

    def __repr__(self) -> str:
        """The report's sentences and its first table."""
        from bench.api import shown

        return shown.text(self.loaded)

    def _repr_html_(self) -> str:
        from bench.api import shown

        return shown.html(self.loaded)


class CellsFailed(BenchError):
    """Not every cell of a run is done. results: what the directory holds, the other cells among it."""

    def __init__(self, message: str, results: Results) -> None:
        super().__init__(message)
        self.results = results


def load(directory: str | os.PathLike[str]) -> Results:
    """Read a results directory, that of a run which has not ended, too.

    Raises BenchError if it holds neither cells nor gradient profiles.
    """
    from bench.report.load import load

    return Results(load(Path(directory)))


def load_if_there(directory: Path) -> Results:
    """The same, without cells where nothing was written yet."""
    from bench.report.load import Results as Loaded
    from bench.report.load import has_profiles
    from bench.run.store import ResultsDir

    empty = not ResultsDir(directory).cells() and not has_profiles(directory)
    return Results(Loaded(directory, {}, (), ())) if empty else load(directory)


def of_plan(planned: PlannedRun) -> Results:
    """The cells of a plan, with what is there of them; those that were never started are `pending`."""
    import pandas as pd

    from bench.report.load import EVALS, METRICS, CellResults
    from bench.report.load import Results as Loaded
    from bench.run.store import WorkState

    there = load_if_there(planned.results.path).loaded
    known = {cell.id: cell for cell in there.cells}
    state, nothing = str(WorkState.PENDING), (pd.DataFrame(columns=METRICS), pd.DataFrame(columns=EVALS))
    for cell in planned.cells:
        path, config = planned.results.cell(cell.id).path, cell.config.model_dump(mode="json")
        known.setdefault(cell.id, CellResults(cell.id, path, state, 0, "", config, {}, *nothing))
    cells = tuple(known[cell.id] for cell in planned.cells)
    return Results(Loaded(there.path, there.request, cells, there.notes))


def checked(results: Results, ended: Ended, check: bool) -> Results:
    """The results of what has ended.

    Raises KeyboardInterrupt or SystemExit if it was interrupted, and CellsFailed if something is not done,
    unless `check` is false.
    """
    from bench.run.launch import INTERRUPTED

    if ended.code == INTERRUPTED:
        raise KeyboardInterrupt("\n".join(ended.messages))
    if ended.code > INTERRUPTED:
        raise SystemExit(ended.code)
    if ended.code and check:
        kept = f"bench.load({str(results.path)!r}) has what is there, and so has this exception's `results`"
        said = ended.messages or ("cells are left alone: another process has them",)
        raise CellsFailed("\n".join((*said, f"{kept}; check=False returns it instead")), results)
    return results
