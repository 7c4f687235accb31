"""All profiles of a results directory → tables: a row per estimator and θ, its terms, steps and curve."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.gradients.moments import Moments
from bench.gradients.probe import LEVEL, MARGIN
from bench.gradients.store import INIT, ProbeConfig, require
from bench.gradients.verdict import Bias, Noise, Part, bias, noise, step_parts, term_parts
from bench.store import State

MEGABYTE = 2**20
CURVE = tuple(2**k for k in range(0, 21, 2))  # samples


@dataclass(frozen=True)
class Row:
    """One profile and what it says."""

    config: ProbeConfig
    moments: Moments
    state: State
    own: Bias
    deployed: Bias
    noise: Noise
    level: float

    @property
    def at(self) -> str:
        """`init`, or where the LoRA came from: the cell's name, if it is in one."""
        if self.config.at == INIT:
            return INIT
        path = Path(self.config.at)
        return path.parent.name if path.name == "lora" else path.name

    @property
    def seconds(self) -> float:
        """Of one batch gradient."""
        return self.moments.seconds / self.moments.timed if self.moments.timed else math.nan


def rows(results: Path) -> list[Row]:
    """Everything measured below a results directory. Raises BenchError if that is nothing.

    Intervals hold together with 95 % for all rows of a table (Bonferroni), so that a long list of methods
    does not make a wrong verdict likely.
    """
    found = require(results)
    tables = {config.model_dump_json(include={"at", "seed"}) for config, _, _ in found}
    level = 1 - (1 - LEVEL) * len(tables) / len(found)
    out = []
    for config, moments, state in found:
        reference = next((m for c, m, _ in found if c.deployed and c.same_target(config)), None)
        own = bias(moments, moments.exact, MARGIN, level)
        nothing = Moments(moments.dim).exact
        deployed = bias(moments, nothing if reference is None else reference.estimate, MARGIN, level)
        out.append(Row(config, moments, state, own, deployed, noise(moments, own.norm), level))
    return sorted(out, key=_order)


def _order(row: Row) -> tuple[bool, str, int, float]:
    """By θ and seed, then by variance × cost."""
    cost = row.noise.relative * row.seconds
    return row.at != INIT, row.at, row.config.seed, cost if math.isfinite(cost) else math.inf


def frame(table: list[Row]) -> pd.DataFrame:
    """gradients.csv; docs/gradients.md documents the columns."""
    return pd.DataFrame.from_records([_record(row) for row in table])


def _record(row: Row) -> dict[str, object]:
    config, moments, own, other = row.config, row.moments, row.own, row.deployed
    relative, draws = row.noise.relative, max(moments.draws, 1)
    words = {"unbiased": "true", "biased": "false", "undecided": "undecided"}
    evaluations = (moments.forward + moments.backward) / draws
    pathwise, cost = row.noise.pathwise, relative * row.seconds
    return {
        "method": config.label,
        "at": row.at,
        "seed": config.seed,
        "declared": "biased" if config.biased else "unbiased",
        "bias_rel": own.relative.value,
        "bias_lo": own.relative.low,
        "bias_hi": own.relative.high,
        "unbiased": words[own.verdict],
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
        "cosine": own.cosine.value,
        "cosine_lo": own.cosine.low,
        "cosine_hi": own.cosine.high,
        "cosine_one": _cosine(row, 1 / config.batch),
        "cosine_deployed": other.cosine.value,
        "mse_rel": other.relative.value**2 + relative * (own.norm / other.norm) ** 2,
        "batch": config.batch,
        "forward_evals": moments.forward / draws,
        "backward_evals": moments.backward / draws,
        "seconds": row.seconds,
        "peak_memory_mb": moments.peak_memory / MEGABYTE,
        "idle_memory_mb": moments.idle_memory / MEGABYTE,
        "variance_x_seconds": cost,
        "variance_x_evals": relative * evaluations,
        "effective_per_second": config.batch * pathwise / cost if cost > 0 else math.nan,
        "norm": own.norm,
        "deployed_norm": other.norm,
        "reward": moments.reward / draws,
        "confidence": row.level,
        "state": str(row.state),
    }


def _cosine(row: Row, batches: float) -> float:
    """Of the mean of so many batches with the own target, from bias and variance: E ĝ · g / (|g| √E|mean|²).

    A fraction of a batch supposes that a batch's variance falls as one over its size.
    """
    own = row.own
    if not (math.isfinite(own.scale) and math.isfinite(row.noise.relative)):
        return math.nan
    # |E ĝ|² / |g|² = |E ĝ - g|² / |g|² + 2 scale - 1
    mean2 = max(own.relative.value**2 + 2 * own.scale - 1, own.scale**2)
    return own.scale / math.sqrt(mean2 + row.noise.relative / batches)


def curves(table: list[Row]) -> pd.DataFrame:
    """gradients_cosine.csv: cosine with the own target against the number of samples averaged."""
    return pd.DataFrame.from_records(
        [
            {
                "method": row.config.label,
                "at": row.at,
                "samples": n,
                "cosine": _cosine(row, n / row.config.batch),
            }
            for row in table
            for n in CURVE
        ]
    )


def parts(table: list[Row], by_step: bool) -> pd.DataFrame:
    """gradients_steps.csv, or gradients_terms.csv: what each step or term contributes, relative to |g|."""
    records = []
    for row in table:
        if not row.own.norm > 0:
            continue
        found: list[Part] = (step_parts if by_step else term_parts)(row.moments, row.own.norm)
        for part in found:
            record = {"method": row.config.label, "at": row.at, "term": part.name}
            if by_step:
                record |= {"step": part.step, "exact": part.exact}
            records.append(record | {"mean": part.mean, "variance": part.variance, "rms": part.rms})
    return pd.DataFrame.from_records(records)
