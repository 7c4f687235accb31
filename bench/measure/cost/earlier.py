"""What earlier commands measured of a method: variances and seconds at several h (`bench gradients`), and
seconds of a step (`bench profile`)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.base.errors import BenchError
from bench.experiment.settings import CellConfig
from bench.measure.cost.step import trained


@dataclass(frozen=True)
class AtH:
    """One h. variance: of a batch's gradient relative to the exact one's square; se: its standard error."""

    label: str
    h: int
    variance: float
    se: float
    seconds: float

    @property
    def cost(self) -> float:
        """Variance × seconds: time to a given precision."""
        return self.variance * self.seconds


@dataclass(frozen=True)
class Variances:
    """rows: by h. v_h, v_z: std per HO and per ZO step relative to the exact gradient, None if not known.

    model, batch: what was measured.
    """

    model: str
    batch: int
    rows: tuple[AtH, ...]
    v_h: float | None
    v_z: float | None

    @property
    def best(self) -> AtH:
        """The row of least variance × seconds."""
        return min(self.rows, key=lambda row: row.cost)

    def rivals(self) -> list[AtH]:
        """Rows whose variance × seconds may, within two standard errors, be as little as the best's."""
        best = self.best
        high = (best.variance + 2 * best.se) * best.seconds
        return [r for r in self.rows if r is not best and (r.variance - 2 * r.se) * r.seconds < high]


@dataclass(frozen=True)
class Timing:
    """seconds: of one optimizer step. source: where they are from, in words."""

    seconds: float
    source: str


def variances(directory: Path, method: str, model: str, steps: int, own: int) -> Variances | None:
    """What `bench gradients` found for a method and its presets METHOD-h0, METHOD-h1, … of this model.

    None if nothing. own: h of the plain method. At several θ, the last one's. Raises BenchError for files of
    other kinds.
    """
    path = directory / "gradients.csv"
    if not path.is_file():
        return None
    try:
        table: Any = pd.read_csv(path)
        table = table[table["model"] == model]
        if table.empty:
            return None
        table = table[table["at"] == table["at"].iloc[-1]]
        found = {
            h: AtH(str(r["method"]), h, r["variance_rel"], r["variance_se"], r["seconds"])
            for r in table[np.isfinite(table["variance_rel"])].to_dict("records")
            if (h := _h_of(str(r["method"]), method, own)) is not None
        }
        if not found:
            return None
        stds = _stds(directory / "gradients_terms.csv", found, model, str(table["at"].iloc[-1]), steps)
        return Variances(model, int(table["batch"].iloc[-1]), tuple(found[h] for h in sorted(found)), *stds)
    except (KeyError, ValueError, pd.errors.ParserError) as error:
        raise BenchError(f"{path}: not a gradient profile's table ({error})") from error


def _h_of(label: str, method: str, own: int) -> int | None:
    """Presets with the same settings share a row: `rlr = rlr-h2`."""
    for name in label.split(" = "):
        if name == method:
            return own
        if found := re.fullmatch(rf"{re.escape(method)}-h([0-9]+)", name):
            return int(found[1])
    return None


def _stds(path: Path, rows: Mapping[int, AtH], model: str, at: str, steps: int) -> tuple[Any, Any]:
    """Per step, from whole terms' variances: a term of n steps of independent noise has n times one's."""
    if not path.is_file():
        return None, None
    table: Any = pd.read_csv(path)
    table = table[(table["model"] == model) & (table["at"] == at)]
    squares: dict[str, list[float]] = {"ho": [], "zo": []}
    for h, row in rows.items():
        for term, count in (("ho", h), ("zo", steps - 1 - h)):
            these = table[(table["method"] == row.label) & (table["term"] == term)]["variance"]
            if count > 0 and len(these) and math.isfinite(float(these.iloc[0])):
                squares[term].append(float(these.iloc[0]) / count)
    v_h, v_z = (math.sqrt(max(0.0, sum(v) / len(v))) if v else None for v in squares.values())
    return v_h, v_z


def timing(config: CellConfig, h: int, known: Variances | None, profiles: Path) -> Timing | None:
    """Seconds of a step of a trained cell: of profile.csv, else of the gradient profile; None if unknown.

    profiles: a directory with profile.csv. Raises BenchError for a file of another kind.
    """
    training = trained(config)
    path = profiles / "profile.csv"
    if path.is_file() and (found := _profiled(pd.read_csv(path), config, h, path)) is not None:
        return found
    if known is not None and known.batch == training.train.batch:
        row = min(known.rows, key=lambda row: abs(row.h - h))
        return Timing(row.seconds, f"gradient profile of h = {row.h}, its machine and settings")
    return None


def _profiled(table: Any, config: CellConfig, h: int, path: Path) -> Timing | None:
    """Of rows that have seconds: measured ones first, then those nearest in h."""
    training = trained(config)
    method = re.escape(training.method.name)
    try:
        rows = table[
            (table["model"] == config.model.name)
            & (table["batch"] == training.train.batch)
            & (table["T"] == config.model.config.steps)
            & table["method"].astype(str).str.fullmatch(rf"{method}(-h[0-9]+)?")
            & table["seconds"].notna()
            & table["h"].notna()
        ].to_dict("records")
        best = min(rows, key=lambda r: (r["mode"] != "measured", abs(r["h"] - h)), default=None)
    except KeyError as error:
        raise BenchError(f"{path}: not a profile's table (no column {error})") from error
    if best is None:
        return None
    return Timing(float(best["seconds"]), f"{best['mode']} at h = {best['h']:.0f}, {path}")
