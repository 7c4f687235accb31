"""How long an optimizer step takes, from whatever was measured: profile.csv or a gradient profile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.base.errors import BenchError
from bench.experiment.settings import CellConfig
from bench.measure.cost.variances import Profile


@dataclass(frozen=True)
class Timing:
    """seconds: of one optimizer step. source: where they are from, for the reader."""

    seconds: float
    source: str


def timing(config: CellConfig, h: int, profile: Profile | None, profiles: Path) -> Timing | None:
    """The best that is known; None if nothing is. profiles: a directory with profile.csv."""
    training = config.training
    if training is None:
        return None
    found = _profiled(config, h, training.method.name, training.train.batch, profiles / "profile.csv")
    if found is not None:
        return found
    if profile is not None and profile.batch == training.train.batch:
        row = min(profile.rows, key=lambda row: abs(row.h - h))
        return Timing(row.seconds, f"gradient profile of h = {row.h}, its machine and settings")
    return None


def _profiled(config: CellConfig, h: int, method: str, batch: int, path: Path) -> Timing | None:
    """From rows that have seconds: measured ones first, then those nearest in h."""
    if not path.is_file():
        return None
    table: Any = pd.read_csv(path)
    try:
        keep = (table["model"] == config.model.name) & (table["batch"] == batch) & table["seconds"].notna()
        rows = table[keep & (table["T"] == config.model.config.steps)]
        names = rows["method"].astype(str)
        rows = rows[(names == method) | names.str.fullmatch(rf"{method}-h[0-9]+")]
        rows = rows[rows["h"].notna()]
        if rows.empty:
            return None
        order = sorted(
            rows.to_dict("records"), key=lambda r: (not str(r["mode"]).startswith("meas"), abs(r["h"] - h))
        )
    except KeyError as error:
        raise BenchError(f"{path}: not a profile's table (no column {error})") from error
    best = order[0]
    return Timing(float(best["seconds"]), f"{best['mode']} at h = {best['h']:.0f}, {path}")
