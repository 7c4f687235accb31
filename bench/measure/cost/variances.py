"""What a gradient profile (`bench gradients`) says about h: V_h, V_z, and variance and seconds of rows."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.base.errors import BenchError


@dataclass(frozen=True)
class Row:
    """One profiled h. variance: of a batch's gradient relative to the exact one's square, se: its error."""

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
class Profile:
    """rows: by h. v_h, v_z: std per HO and per ZO step relative to the exact gradient, None if not there.

    model, batch: what was profiled.
    """

    model: str
    batch: int
    rows: tuple[Row, ...]
    v_h: float | None
    v_z: float | None

    @property
    def best(self) -> Row:
        """The row of least variance × seconds."""
        return min(self.rows, key=lambda row: row.cost)

    def rivals(self) -> list[Row]:
        """Rows whose variance × seconds may, within two standard errors, be as little as the best's."""
        best = self.best
        high = (best.variance + 2 * best.se) * best.seconds
        return [r for r in self.rows if r is not best and (r.variance - 2 * r.se) * r.seconds < high]


def read(directory: Path, method: str, model: str, steps: int, own: int) -> Profile | None:
    """The profile of a method and its presets METHOD-h0, METHOD-h1, … None if there is none of this model.

    own: h of the plain method. At several θ, the last one's. Raises BenchError for files of other kinds.
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
        found = {}
        for record in table.to_dict("records"):
            h = _h_of(str(record["method"]), method, own)
            if h is not None and math.isfinite(record["variance_rel"]):
                found[h] = Row(
                    str(record["method"]),
                    h,
                    record["variance_rel"],
                    record["variance_se"],
                    record["seconds"],
                )
        if not found:
            return None
        stds = _stds(directory / "gradients_terms.csv", found, model, str(table["at"].iloc[-1]), steps)
        rows = tuple(found[h] for h in sorted(found))
        return Profile(model, int(table["batch"].iloc[-1]), rows, *stds)
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


def _stds(path: Path, rows: Mapping[int, Row], model: str, at: str, steps: int) -> tuple[Any, Any]:
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
