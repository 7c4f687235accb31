"""The tables of `Results`: the report's frames with what each row is about, and typed columns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.report.groups import contests
from bench.report.load import EVALS, INFERENCE, METRICS, CellResults, Results
from bench.report.summary import contest_lines
from bench.report.tables import frame as summary_frame

KEYS = ("cell", "model", "reward", "prompts", "method", "label", "seed")  # what a row is about
TEXTS = {
    *("cell", "model", "reward", "by", "trained_on", "prompts", "prompt", "method", "label", "term"),
    *("contest", "features"),
    *("state", "status", "problem", "path", "steering_term"),
    *("at", "declared", "unbiased", "verdict", "deployed_verdict"),  # of gradient profiles
}
COUNTS = {
    *("seed", "step", "image", "batch", "samples", "micro_batch", "graphs_kept", "memory"),
    *("nfe_forward", "nfe_backward", "nfe_again"),
}
SUMMARY_COUNTS = {"seeds", "eval_step", "collapsed"}  # others are means over seeds
PROFILE_COUNTS = {"seed", "draws", "batch"}
FLAGS = {"reference"}
NESTED = ("terms", "half_order_norms", "extra")  # columns of metrics.jsonl that hold mappings


def cells(loaded: Results) -> pd.DataFrame:
    """A row per cell."""
    labels = _labels(loaded)
    rows = [
        _keys(cell, labels)
        | {"state": cell.status, "step": cell.step, "problem": cell.problem or None, "path": str(cell.path)}
        for cell in loaded.cells
    ]
    return _typed(pd.DataFrame.from_records(rows, columns=[*KEYS, "state", "step", "problem", "path"]))


def metrics(loaded: Results) -> pd.DataFrame:
    """A row per cell and optimizer step. What a method logs besides is in columns `extra.NAME`."""
    columns = [name for name in METRICS if name not in NESTED]
    return _stacked(loaded, [(cell, _flat(cell.metrics)) for cell in loaded.cells], columns)


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Without mappings, but for the numbers in `extra`."""
    plain = frame.drop(columns=[name for name in NESTED if name in frame])
    if "extra" not in frame:
        return plain
    extra = pd.DataFrame([one if isinstance(one, dict) else {} for one in frame["extra"]], frame.index)
    return plain.join(extra.select_dtypes("number").add_prefix("extra."))


def terms(loaded: Results) -> pd.DataFrame:
    """A row per cell, optimizer step and term."""
    columns, parts = ["step", "term", "norm", "variance"], []
    for cell in loaded.cells:
        rows = [
            {"step": step, "term": name, "norm": term["norm"], "variance": term["variance"]}
            for step, found in zip(cell.metrics["step"], cell.metrics["terms"], strict=True)
            if isinstance(found, dict)
            for name, term in found.items()
        ]
        parts.append((cell, pd.DataFrame.from_records(rows, columns=columns)))
    return _stacked(loaded, parts, columns)


def evaluations(loaded: Results) -> pd.DataFrame:
    """A row per cell, evaluation, picture and reward. `reward` is what scored it, `trained_on` the cell's."""
    found = _stacked(
        loaded, [(cell, cell.evals.rename(columns={"reward": "by"})) for cell in loaded.cells],
        ["by" if name == "reward" else name for name in EVALS],
    )  # fmt: skip
    return _typed(found.rename(columns={"reward": "trained_on", "by": "reward"}))


def inference(loaded: Results) -> pd.DataFrame:
    """A row per cell and picture, of methods that train nothing."""
    parts = [(cell, cell.inference.drop(columns="rewards", errors="ignore")) for cell in loaded.cells]
    return _stacked(loaded, parts, INFERENCE)


def summary(loaded: Results) -> pd.DataFrame:
    """A row per contest and method: report/summary.csv, with the method's name beside its label."""
    parts = [pd.DataFrame(columns=["contest", "model", "reward", "method", "label"])]
    for contest, lines in contest_lines(loaded):
        found = summary_frame(lines).rename(columns={"method": "label"})
        found.insert(0, "contest", contest.title)
        found.insert(list(found.columns).index("label"), "method", [line.group.method for line in lines])
        parts.append(found.replace({"steering_term": {"": None}}))
    return _typed(_concat(parts), SUMMARY_COUNTS)


def gradients(directory: Path) -> pd.DataFrame:
    """A row per gradient profile: gradients.csv, and what the table on the terminal has besides.

    As in the other tables, `reward` is a name; its mean is `reward_mean`.
    """
    from bench.base.units import MIB
    from bench.measure.gradients.profiles import profile_tables, read_profiles
    from bench.measure.gradients.store import probes
    from bench.measure.gradients.table import KEYS, frame

    rows = [row for table in profile_tables(read_profiles(probes(directory))[0]) for row in table]
    found = frame(rows) if rows else pd.DataFrame(columns=list(KEYS))
    found = found.rename(columns={"reward": "reward_mean", "reward_name": "reward"}).assign(
        variance=[row.variance for row in rows],
        memory_mb=[(row.moments.peak_memory - row.moments.idle_memory) / MIB for row in rows],
        variance_x_s=[row.variance * row.seconds for row in rows],
    )
    return _typed(found, PROFILE_COUNTS)


def _labels(loaded: Results) -> dict[str, str]:
    """Cell → what the report calls it: its method, with the settings that differ from others'."""
    groups = [group for contest in contests(loaded) for group in (contest.base, *contest.groups) if group]
    return {cell.id: group.label for group in groups for cell in (*group.cells, *group.left_out)}


def _keys(cell: CellResults, labels: Mapping[str, str]) -> dict[str, Any]:
    """What a row of any table is about; of a cell whose settings cannot be read its id alone."""
    if not cell.config:
        return dict.fromkeys(KEYS) | {"cell": cell.id}
    return {
        "cell": cell.id,
        "model": cell.config["model"]["name"],
        "reward": cell.training["reward"]["name"] if cell.training else None,
        "prompts": cell.config["prompts"],
        "method": cell.method,
        "label": labels.get(cell.id, cell.method),
        "seed": cell.seed,
    }


def _stacked(
    loaded: Results, parts: Iterable[tuple[CellResults, pd.DataFrame]], columns: Sequence[str]
) -> pd.DataFrame:
    """The cells' rows below one another, behind what they are about. columns: there also without rows."""
    labels, frames = _labels(loaded), [pd.DataFrame(columns=[*KEYS, *columns])]
    for cell, rows in parts:
        keys = pd.DataFrame([_keys(cell, labels)] * len(rows), rows.index, columns=list(KEYS))
        frames.append(keys.join(rows))
    return _typed(_concat(frames))


def _concat(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The first one, without rows, says which columns come first."""
    filled = [frame.astype(object) for frame in frames if len(frame)]
    columns = dict.fromkeys(name for frame in (frames[0], *filled) for name in frame.columns)
    return pd.concat(filled or [frames[0]], ignore_index=True).reindex(columns=list(columns))


def _typed(frame: pd.DataFrame, counts: Collection[str] = frozenset(COUNTS)) -> pd.DataFrame:
    """Texts as `string`, counts as `Int64`, flags as `boolean`, all others as `float64`."""
    return frame.astype({str(name): _kind(str(name), values, counts) for name, values in frame.items()})


def _kind(name: str, values: pd.Series, counts: Collection[str]) -> str:
    if name in counts:
        return "Int64"
    if name in TEXTS or pd.api.types.infer_dtype(values, skipna=True) == "string":
        return "string"
    return "boolean" if name in FLAGS else "float64"
