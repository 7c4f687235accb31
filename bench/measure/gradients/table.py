"""Rows → the files beside gradients/: the profiles, their terms, steps, curves and best factors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bench.base.files import write_atomically
from bench.base.units import MIB
from bench.measure.gradients.moments import TERMS
from bench.measure.gradients.profiles import ProfileRow
from bench.measure.gradients.term_factors import least_squares
from bench.measure.gradients.verdict import Bias, Contribution, Verdict, step_parts, term_parts

WORDS = {Verdict.UNBIASED: "true", Verdict.BIASED: "false", Verdict.UNDECIDED: "undecided"}
BATCHES = tuple(8 * 4**k for k in range(13))  # samples
KEYS = ("method", "model", "reward_name", "at", "seed")
CURVE = tuple(2**k for k in range(0, 21, 2))  # samples


def frame(table: Sequence[ProfileRow]) -> pd.DataFrame:
    """gradients.csv; docs/gradients.md documents the columns."""
    return pd.DataFrame.from_records([_record(row) for row in table])


def _keys(row: ProfileRow) -> dict[str, object]:
    """What a line of any of the files is about."""
    config = row.config
    return {
        "method": row.label,
        "model": config.model.name,
        "reward_name": config.reward.name,
        "at": row.at,
        "seed": config.seed,
    }


def _record(row: ProfileRow) -> dict[str, object]:
    config, moments, own, other = row.config, row.moments, row.own, row.deployed
    relative, draws = row.noise.relative, max(moments.draws, 1)
    equivalents = (moments.forward + 2 * moments.backward) / draws
    pathwise, cost = row.noise.pathwise, relative * row.seconds
    return {
        **_keys(row),
        "reference": config.deployed,
        "declared": "biased" if config.biased else "unbiased",
        "bias_rel": own.relative.value,
        "bias_lo": own.relative.low,
        "bias_hi": own.relative.high,
        "unbiased": WORDS[own.verdict],
        "verdict": str(own.verdict),
        "draws": moments.draws,
        "draws_to_decide": own.needed,
        "deployed_bias_rel": other.relative.value,
        "deployed_bias_lo": other.relative.low,
        "deployed_bias_hi": other.relative.high,
        "deployed_verdict": str(other.verdict),
        "direction_bias": own.direction.value,
        "direction_lo": own.direction.low,
        "direction_hi": own.direction.high,
        "scale": own.scale,
        "variance_rel": relative,
        "variance_se": row.noise.se,
        "variance_exact": pathwise,
        "variance_deployed": row.variance_deployed,
        "cosine": own.cosine.value,
        "cosine_lo": own.cosine.low,
        "cosine_hi": own.cosine.high,
        "cosine_one": _cosine(own, relative, 1 / config.batch),
        "cosine_deployed": other.cosine.value,
        "mse_rel": other.relative.value**2 + row.variance_deployed,
        "batch": config.batch,
        "forward_evals": moments.forward / draws,
        "backward_evals": moments.backward / draws,
        "seconds": row.seconds,
        "peak_memory_mb": moments.peak_memory / MIB,
        "idle_memory_mb": moments.idle_memory / MIB,
        "variance_x_seconds": cost,
        "variance_x_evals": relative * equivalents,
        "effective_per_second": config.batch * pathwise / cost if cost > 0 else math.nan,
        "norm": own.norm,
        "deployed_norm": other.norm,
        "reward": moments.reward / draws,
        "confidence": row.level,
        "state": str(row.state),
    }


def _cosine(against: Bias, variance: float, batches: float) -> float:
    """Of the mean of so many batches with a target, from bias and variance: E ĝ · g / (|g| √E|mean|²).

    variance: relative to the target's |g|². A fraction of a batch supposes that a batch's variance falls as
    one over its size.
    """
    if not (math.isfinite(against.scale) and math.isfinite(variance)):
        return math.nan
    # |E ĝ|² / |g|² = |E ĝ - g|² / |g|² + 2 scale - 1
    mean2 = max(against.relative.value**2 + 2 * against.scale - 1, against.scale**2)
    return against.scale / math.sqrt(mean2 + variance / batches)


def curves(table: Sequence[ProfileRow]) -> pd.DataFrame:
    """gradients_cosine.csv: cosine with the targets against the number of samples averaged."""
    records = []
    for row in table:
        for n in CURVE:
            batches = n / row.config.batch
            records.append(
                {
                    **_keys(row),
                    "samples": n,
                    "cosine": _cosine(row.own, row.noise.relative, batches),
                    "cosine_deployed": _cosine(row.deployed, row.variance_deployed, batches),
                    "measured": batches <= row.moments.draws,
                }
            )
    return pd.DataFrame.from_records(records)


def parts(table: Sequence[ProfileRow], by_step: bool) -> pd.DataFrame:
    """gradients_steps.csv, or gradients_terms.csv: what each step or term contributes, relative to `unit`."""
    records = []
    for row in table:
        if not row.unit > 0:
            continue
        found: list[Contribution] = (step_parts if by_step else term_parts)(row.moments, row.unit)
        for part in found:
            record = {**_keys(row), "term": part.name}
            if by_step:
                record |= {"step": part.step, "exact": part.exact}
            records.append(record | {"mean": part.mean, "variance": part.variance, "rms": part.rms})
    steps = ["step", "exact"] if by_step else []
    return pd.DataFrame.from_records(records, columns=[*KEYS, "term", *steps, "mean", "variance", "rms"])


def factors(table: Sequence[ProfileRow]) -> pd.DataFrame:
    """gradients_weights.csv: factors of the terms that make the mean squared error least, by batch size."""
    records = []
    for row in table:
        found = least_squares(row.moments, row.config.batch, BATCHES)
        for one in found if len(row.moments.terms) > 1 else []:
            best = {f"weight_{kind.lower()}": factor for kind, factor in one.factors.items()}
            errors = {"mse": one.error, "mse_at_one": one.error_at_one}
            records.append({**_keys(row), "batch": one.batch, **best, **errors})
    columns = [f"weight_{kind.lower()}" for kind in TERMS]
    return pd.DataFrame.from_records(records, columns=[*KEYS, "batch", *columns, "mse", "mse_at_one"])


def write(results: Path, table: Sequence[ProfileRow]) -> None:
    """The files beside gradients/."""
    files = {
        "gradients.csv": frame(table),
        "gradients_terms.csv": parts(table, by_step=False),
        "gradients_steps.csv": parts(table, by_step=True),
        "gradients_cosine.csv": curves(table),
        "gradients_weights.csv": factors(table),
    }
    for name, content in files.items():
        text = content.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_atomically(results / name, text)
