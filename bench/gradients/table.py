"""All profiles of a results directory → tables: a row per estimator and θ, its terms, steps and curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.errors import BenchError
from bench.gradients.moments import TERMS, Moments
from bench.gradients.probe import LEVEL, MARGIN
from bench.gradients.store import INIT, ProbeConfig
from bench.gradients.survey import Measured, survey
from bench.gradients.verdict import (
    Bias,
    Noise,
    Part,
    Verdict,
    bias,
    mean_length,
    noise,
    step_parts,
    term_parts,
)
from bench.gradients.weights import least_squares
from bench.labels import told_apart
from bench.store import State, write_atomically

MEGABYTE = 2**20
WORDS = {Verdict.UNBIASED: "true", Verdict.BIASED: "false", Verdict.UNDECIDED: "undecided"}
BATCHES = tuple(8 * 4**k for k in range(13))  # samples
KEYS = ("method", "model", "reward_name", "at", "seed")
CURVE = tuple(2**k for k in range(0, 21, 2))  # samples


@dataclass(frozen=True)
class Row:
    """One profile and what it says.

    label: the method's names, told apart from other rows'. length: |g| of the deployed sampler, from all
    draws of the reference; nan if it is not known.
    """

    label: str
    config: ProbeConfig
    moments: Moments
    state: State
    own: Bias
    deployed: Bias
    noise: Noise
    length: float
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

    @property
    def unit(self) -> float:
        """|g| that rows of a table are compared by: the deployed sampler's, or the own where that is
        unknown."""
        return self.length if self.length > 0 else self.own.norm

    @property
    def variance_deployed(self) -> float:
        """Total variance of one batch gradient relative to the deployed sampler's |g|²."""
        return self.moments.estimate.spread() / self.length**2

    @property
    def variance(self) -> float:
        """Total variance of one batch gradient in units of `unit`²."""
        return self.moments.estimate.spread() / self.unit**2 if self.unit > 0 else math.nan


def rows(results: Path) -> list[Row]:
    """Everything measured below a results directory. Raises BenchError if that is nothing."""
    found, _ = survey(results)
    if not found:
        raise BenchError(f"{results}: holds no gradient profile with any draws in it")
    return analysed(found)


def analysed(found: Sequence[Measured]) -> list[Row]:
    """A row per profile, those of one model, θ, reward and batch together.

    Those declared unbiased come first, then by variance × cost.

    Intervals hold together with 95 % for all rows of such a table (Bonferroni), so that a long list of
    methods does not make a wrong verdict likely.
    """
    scopes: list[list[Measured]] = []
    for one in found:
        scope = next((s for s in scopes if s[0].config.same_target(one.config)), None)
        if scope is None:
            scopes.append([one])
        else:
            scope.append(one)
    tables = [sorted(_analysed(scope), key=_cost) for scope in scopes]
    return [row for table in sorted(tables, key=_place) for row in table]


def _analysed(scope: list[Measured]) -> list[Row]:
    level = 1 - (1 - LEVEL) / len(scope)
    reference = next((one.moments for one in scope if one.config.deployed), None)
    length = math.nan if reference is None else mean_length(reference.exact, level)
    out = []
    for label, one in zip(_labels([one.config for one in scope]), scope, strict=True):
        moments = one.moments
        exact = Moments(moments.dim, moments.steps).exact if reference is None else reference.exact
        shares = moments.deterministic and moments.exact.total < moments.draws
        target = exact if shares else moments.exact
        own, deployed = (bias(moments, g, MARGIN, level) for g in (target, exact))
        spread = noise(moments, target, own.norm)
        out.append(Row(label, one.config, moments, one.state, own, deployed, spread, length, level))
    return out


def _labels(configs: Sequence[ProbeConfig]) -> list[str]:
    """The method's names; several settings of one method say what differs."""
    names = [config.method.name for config in configs]
    found = {}
    for name in dict.fromkeys(names):
        variants = [n for n, config in enumerate(configs) if config.method.name == name]
        settings = [{**configs[n].method.config, "threads": configs[n].threads} for n in variants]
        found |= dict(zip(variants, told_apart(name, settings), strict=True))
    return [" = ".join((found[n], *config.aliases)) for n, config in enumerate(configs)]


def _cost(row: Row) -> tuple[bool, float]:
    """By what it declares, then by variance × cost: what is biased may have no variance at all."""
    cost = row.variance * row.seconds
    return row.config.biased, cost if math.isfinite(cost) else math.inf


def _place(table: list[Row]) -> tuple[bool, str, int, str]:
    first = table[0]
    return first.at != INIT, first.at, first.config.seed, first.config.model.name


def groups(table: Sequence[Row]) -> list[list[Row]]:
    """Rows that may be compared: one model, θ, reward, batch and seed. As sorted by `rows`."""
    out: list[list[Row]] = []
    for row in table:
        if out and out[-1][0].config.same_target(row.config):
            out[-1].append(row)
        else:
            out.append([row])
    return out


def frame(table: Sequence[Row]) -> pd.DataFrame:
    """gradients.csv; docs/gradients.md documents the columns."""
    return pd.DataFrame.from_records([_record(row) for row in table])


def _keys(row: Row) -> dict[str, object]:
    """What a line of any of the files is about."""
    config = row.config
    return {
        "method": row.label,
        "model": config.model.name,
        "reward_name": config.reward.name,
        "at": row.at,
        "seed": config.seed,
    }


def _record(row: Row) -> dict[str, object]:
    config, moments, own, other = row.config, row.moments, row.own, row.deployed
    relative, draws = row.noise.relative, max(moments.draws, 1)
    evaluations = (moments.forward + moments.backward) / draws
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


def curves(table: Sequence[Row]) -> pd.DataFrame:
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


def parts(table: Sequence[Row], by_step: bool) -> pd.DataFrame:
    """gradients_steps.csv, or gradients_terms.csv: what each step or term contributes, relative to `unit`."""
    records = []
    for row in table:
        if not row.unit > 0:
            continue
        found: list[Part] = (step_parts if by_step else term_parts)(row.moments, row.unit)
        for part in found:
            record = {**_keys(row), "term": part.name}
            if by_step:
                record |= {"step": part.step, "exact": part.exact}
            records.append(record | {"mean": part.mean, "variance": part.variance, "rms": part.rms})
    steps = ["step", "exact"] if by_step else []
    return pd.DataFrame.from_records(records, columns=[*KEYS, "term", *steps, "mean", "variance", "rms"])


def weights(table: Sequence[Row]) -> pd.DataFrame:
    """gradients_weights.csv: factors of the terms that make the mean squared error least, by batch size."""
    records = []
    for row in table:
        found = least_squares(row.moments, row.config.batch, BATCHES)
        for one in found if len(row.moments.terms) > 1 else []:
            factors = {f"weight_{kind.lower()}": factor for kind, factor in one.factors.items()}
            errors = {"mse": one.error, "mse_at_one": one.error_at_one}
            records.append({**_keys(row), "batch": one.batch, **factors, **errors})
    factors = [f"weight_{kind.lower()}" for kind in TERMS]
    return pd.DataFrame.from_records(records, columns=[*KEYS, "batch", *factors, "mse", "mse_at_one"])


def write(results: Path, table: Sequence[Row]) -> None:
    """The files beside gradients/."""
    files = {
        "gradients.csv": frame(table),
        "gradients_terms.csv": parts(table, by_step=False),
        "gradients_steps.csv": parts(table, by_step=True),
        "gradients_cosine.csv": curves(table),
        "gradients_weights.csv": weights(table),
    }
    for name, content in files.items():
        text = content.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_atomically(results / name, text)
