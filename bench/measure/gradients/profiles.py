"""All gradient profiles of a results directory → tables: a row per estimator and θ, with its figures and its
verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.base.errors import BenchError
from bench.base.files import read_json
from bench.base.labels import told_apart
from bench.measure.gradients.moments import Moments
from bench.measure.gradients.probe import LEVEL, MARGIN
from bench.measure.gradients.store import INIT, ProbeConfig, ProbeDir, probes
from bench.measure.gradients.verdict import Bias, Noise, bias, mean_length, noise
from bench.run.store import WorkState

UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Measured:
    """One profile and its sums. env: env.json of the latest process; empty if there is none."""

    config: ProbeConfig
    moments: Moments
    state: WorkState
    env: dict[str, Any]


@dataclass(frozen=True)
class UnfinishedProfile:
    """A profile that is not done or cannot be read (state `unreadable`), and why, as far as known."""

    id: str
    state: str
    draws: int
    reason: str


def read_profiles(places: Iterable[ProbeDir]) -> tuple[list[Measured], list[UnfinishedProfile]]:
    """Everything in these directories. What is not done but has draws is in both lists."""
    found: list[Measured] = []
    unfinished: list[UnfinishedProfile] = []
    for probe in places:
        try:
            status = probe.status()
            measured = _read(probe, status.state)
        except BenchError as error:
            unfinished.append(UnfinishedProfile(probe.id, UNREADABLE, 0, str(error)))
            continue
        if measured is not None:
            found.append(measured)
        if status.state is not WorkState.DONE:
            unfinished.append(
                UnfinishedProfile(probe.id, str(status.state), status.step, status.message or "")
            )
    return found, unfinished


def _read(probe: ProbeDir, state: WorkState) -> Measured | None:
    saved, _ = probe.restore()
    if saved is None:
        return None
    env = read_json(probe.path / "env.json") or {}
    return Measured(probe.config(), saved.moments, state, env)


@dataclass(frozen=True)
class ProfileRow:
    """One profile and what it says.

    label: the method's names, distinguished from other rows'. length: |g| of the deployed sampler, from all
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
        """Seconds of one batch gradient, nan if none was timed."""
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


def profile_tables(found: Sequence[Measured]) -> list[list[ProfileRow]]:
    """A table of rows for the profiles of each model, θ, reward, batch and seed: those may be compared.

    Methods that are declared unbiased come first, then by variance × seconds. Intervals hold together with
    95 % for all rows of a table (Bonferroni), so that a long list of methods does not make a wrong verdict
    likely.
    """
    scopes: list[list[Measured]] = []
    for one in found:
        scope = next((s for s in scopes if s[0].config.same_target(one.config)), None)
        if scope is None:
            scopes.append([one])
        else:
            scope.append(one)
    return sorted((sorted(_analysed(scope), key=_cost) for scope in scopes), key=_place)


def rows(results: Path) -> list[ProfileRow]:
    """The rows of all tables of a results directory. Raises BenchError if nothing was measured there."""
    found, _ = read_profiles(probes(results))
    if not found:
        raise BenchError(f"{results}: holds no gradient profile with any draws in it")
    return [row for table in profile_tables(found) for row in table]


def _analysed(scope: list[Measured]) -> list[ProfileRow]:
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
        out.append(ProfileRow(label, one.config, moments, one.state, own, deployed, spread, length, level))
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


def _cost(row: ProfileRow) -> tuple[bool, float]:
    """By what it declares, then by variance × cost: what is biased may have no variance at all."""
    cost = row.variance * row.seconds
    return row.config.biased, cost if math.isfinite(cost) else math.inf


def _place(table: list[ProfileRow]) -> tuple[bool, str, int, str]:
    first = table[0]
    return first.at != INIT, first.at, first.config.seed, first.config.model.name
