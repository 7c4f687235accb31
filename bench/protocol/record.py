"""The record of a suite: OUT/record, small tables that are all that a leaderboard needs (docs/results.md).

It can be written at any time, also while cells run, and is a function of what is stored: lines in the order
of the request, no times of writing, so the same results give the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd

from bench.base.errors import BenchError
from bench.base.files import Record, write_atomically
from bench.base.layers import Tree, dump_yaml, read_yaml
from bench.experiment.search import space
from bench.protocol import tune
from bench.protocol.reading import CHOSEN, CURVES, RUNS, SCORES, SUITE, TRIALS, column
from bench.protocol.suite import RECORD, Part, Run, Suite, runs, state
from bench.report.load import CellResults, load
from bench.report.over_optimised import distances
from bench.report.spent import at_step
from bench.run.evaluations import incomplete
from bench.run.spent import Counters
from bench.run.store import ResultsDir

WHO = ["method", "study", "seed"]
COUNTS = ["steps", "samples", "forwards", "again", "memory"]  # whole numbers
RUN_COLUMNS = [*WHO, "state", "cell", "settings", *COUNTS[:-1], "seconds", "memory"]
CURVE_COLUMNS = [*WHO, "step", "forwards", "seconds", "reward", "score"]
BY_PROMPT = ["prompt", "reward"]
WHOLE = dict.fromkeys(("study", "seed", "step", *COUNTS), "Int64")


def write(suite: Suite) -> Path:
    """Write all tables as far as the suite is, and of tunings that have ended what they chose. The folder."""
    folder, ran = suite.out / RECORD, list[CellResults]()
    for part in suite.parts:
        if not tune.waiting(part.tuning):
            tune.write(part.tuning)
        found, final, trials = runs(suite, part), _stored(part.results), _stored(part.tuning.results)
        for name, text in tables(part, found, final).items():
            write_atomically(folder / part.name / name, text)
        ran += [trials[trial.cell] for trial in part.tuning.trials if trial.cell in trials]
        ran += [final[run.cell] for run in found if run.cell in final]
    write_atomically(folder / SUITE, dump_yaml(description(suite, ran)))
    return folder


def write_again(suite: Suite) -> Path:
    """The same at any later time. Raises BenchError where nothing was ever run."""
    if not any(part.tuning.results.cells() or part.results.cells() for part in suite.parts):
        raise BenchError(f"--out {suite.out}: nothing was run there: name the directory of the suite's run")
    return write(suite)


def description(suite: Suite, ran: Sequence[CellResults]) -> Tree:
    """suite.yaml. ran: the cells that tell what it ran on."""
    return {
        "format": 1,
        "methods": list(suite.methods),
        **suite.effort._asdict(),
        "workloads": {part.name: read_yaml(Path(part.origin)) for part in suite.parts},
        "sits_out": {part.name: list(part.sits_out) for part in suite.parts},
        "environment": environment(ran),
        "search": {
            method: {
                key: law.model_dump(mode="json", exclude_none=True) for key, law in space(method).items()
            }
            for method in suite.methods
        },
    }


def environment(ran: Sequence[CellResults]) -> Tree:
    """What cells ran on: version, commit, packages, hardware. Where they differ, a list of all."""
    values: dict[str, dict[Any, None]] = {}
    for facts in (cell.env for cell in ran if cell.env):
        for key, value in _told(facts).items():
            values.setdefault(key, {})[value] = None
    return {
        key: one if not others else sorted([one, *others], key=str) for key, (one, *others) in values.items()
    }


def _told(facts: Record) -> Tree:
    """What of a cell's env.json is in the record."""
    git, packages = facts["git"], facts["packages"]
    return {
        "bench": facts["version"],
        "commit": None if git is None else git["commit"] + "-dirty" * git["dirty"],
        "python": facts["python"],
        **{name: packages[name] for name in ("torch", "diffusers", "peft")},
        "device": facts["device"],
        "processor": facts["gpu"] or facts["cpu"],
        "threads": facts["torch_threads"],
    }


def tables(part: Part, found: Sequence[Run], stored: Mapping[str, CellResults]) -> dict[str, str]:
    """The files of one workload, by name. stored: what there is of its final runs, by cell."""
    lines = [_run_line(part, run, stored.get(run.cell or "")) for run in found]
    known = [(run, stored[run.cell]) for run in found if run.cell is not None and run.cell in stored]
    base = stored.get(part.base)
    evaluated = [(run, cell, _evaluations(part, cell, base)) for run, cell in known if not cell.evals.empty]
    curves = [line for run, cell, rows in evaluated for line in _curve(run, cell, rows)]
    return {
        TRIALS: tune.trials_table(part.tuning),
        CHOSEN: dump_yaml(tune.chosen_tree(part.tuning) | {"workload": part.name}),
        RUNS: _csv(lines, RUN_COLUMNS),
        CURVES: _csv(curves, CURVE_COLUMNS),
        SCORES: _scores({column(run.method, run.seed): rows for run, cell, rows in evaluated if cell.done}),
    }


def _stored(results: ResultsDir) -> dict[str, CellResults]:
    """The cells that were started, by id."""
    return {cell.id: cell for cell in load(results.path).cells} if results.cells() else {}


def _csv(lines: Sequence[Tree], columns: Sequence[str]) -> str:
    frame = pd.DataFrame(lines, columns=list(columns))
    whole = frame.astype({name: kind for name, kind in WHOLE.items() if name in columns})
    return _text(whole, index=False)


def _text(frame: pd.DataFrame, index: bool) -> str:
    return frame.to_csv(index=index, lineterminator="\n", float_format="%.6g")


def _who(run: Run) -> Tree:
    return {"method": run.method, "study": run.study, "seed": run.seed}


def _run_line(part: Part, run: Run, cell: CellResults | None) -> Tree:
    settings = None if run.settings is None else json.dumps(run.settings)
    line = {**_who(run), "state": str(state(part, run)), "cell": run.cell, "settings": settings}
    return line if cell is None else line | _cost(cell)


def _cost(cell: CellResults) -> Tree:
    """What the training has taken so far; nothing is known of the memory of one that has not begun."""
    found = at_step(cell, max(cell.metrics["step"], default=0))
    spent = Counters.of(found)
    return {
        "steps": spent.step,
        "samples": spent.samples,
        "forwards": spent.forward_equivalents,
        "again": spent.nfe_again,
        "seconds": spent.seconds,
        "memory": found["memory"] if spent.step else math.nan,
    }


def _evaluations(part: Part, cell: CellResults, base: CellResults | None) -> pd.DataFrame:
    """The whole evaluations of a cell: step, prompt, image, reward, score; diversity and distance among them.

    One that is just being written is left out.
    """
    rows = [{str(key): value for key, value in row.items()} for row in cell.evals.to_dict("records")]
    torn = incomplete(rows, part.results.cell(cell.id).config())
    whole = cast(pd.DataFrame, cell.evals[~cell.evals["step"].isin(torn)])
    if base is None or cell is base:
        return whole
    return pd.concat([whole, *(distances(cell, base, int(step)) for step in whole["step"].unique())])


def _means(evaluations: pd.DataFrame, by: Sequence[str]) -> list[Tree]:
    """Mean score over the pictures, a line for each value of the columns `by`, in their order."""
    means = cast(pd.DataFrame, evaluations.groupby(list(by), as_index=False)["score"].mean())
    return [{str(key): value for key, value in row.items()} for row in means.to_dict("records")]


def _curve(run: Run, cell: CellResults, evaluations: pd.DataFrame) -> list[Tree]:
    found: list[Tree] = []
    for line in _means(evaluations, ("step", "reward")):
        spent = Counters.of(at_step(cell, line["step"]))
        costs = {"forwards": spent.forward_equivalents, "seconds": spent.seconds}
        found.append({**_who(run), **line, **costs})
    return found


def _scores(evaluated: Mapping[str, pd.DataFrame]) -> str:
    """A column for each training that is done, as it was at its end: an evaluation on the way is no result of
    the budget. evaluated: by the names of the columns."""
    lines: list[Tree] = []
    for name, rows in evaluated.items():
        last = cast(pd.DataFrame, rows[rows["step"] == rows["step"].max()])
        lines += [{"run": name, **line} for line in _means(last, BY_PROMPT)]
    long = pd.DataFrame(lines, columns=["run", *BY_PROMPT, "score"])
    wide = long.pivot(index=BY_PROMPT, columns="run", values="score")
    return _text(wide.reindex(columns=list(evaluated)), index=True)
