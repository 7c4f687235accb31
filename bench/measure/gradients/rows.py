"""All profiles of a results directory → rows: one per estimator and θ, with its figures and its verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.base.errors import BenchError
from bench.base.labels import told_apart
from bench.measure.gradients.moments import Moments
from bench.measure.gradients.probe import LEVEL, MARGIN
from bench.measure.gradients.store import INIT, ProbeConfig
from bench.measure.gradients.survey import Measured, survey
from bench.measure.gradients.verdict import Bias, Noise, bias, mean_length, noise
from bench.run.store import WorkState


@dataclass(frozen=True)
class Row:
    """One profile and what it says.

    label: the method's names, told apart from other rows'. length: |g| of the deployed sampler, from all
    draws of the reference; nan if it is not known.
    """

    label: str
    config: ProbeConfig
    moments: Moments
    state: WorkState
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
