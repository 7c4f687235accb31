"""Methods that are a distribution over plans: everything but the plan is the same for all of them."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING

from bench.engine.adjoint_matching import Matching
from bench.engine.advantages import Baseline, Divisor, advantages, check_company
from bench.engine.balance import Balance, balanced, learn
from bench.engine.batch import Batch, Perturbation, Report
from bench.engine.control_variate import Control, Scale, Sums, scale_of
from bench.engine.method import Method
from bench.engine.plan import UNIT_WEIGHTS, Kind, Plan, Segment
from bench.engine.random_streams import derived_seed, uniform

if TYPE_CHECKING:
    from bench.engine.engine import Engine

FORGET = 0.98  # per batch, of the sums that a control variate is fitted to


@dataclass(frozen=True)
class Estimator:
    """What a plan does not say: perturbation of ZO steps, advantages of HO and ZO, and the term weights.

    one_plan: the whole batch shares one draw of the plan, instead of one draw per sample. stratified: the
    first random() of the samples' plans is spread evenly over [0, 1) within a batch (each is still uniform).
    balance: how earlier batches change the weights (`bench.engine.balance`). half_order_norms: keep a running
    mean of HO gradient norms by chain step in `state`. control: a control variate for HO. matching: for AM.
    """

    perturbation: Perturbation = field(default_factory=Perturbation)
    baseline: Baseline = "loo"
    divide: Divisor = "none"
    weights: Mapping[Kind, float] = field(default_factory=lambda: UNIT_WEIGHTS)
    balance: Balance = "none"
    one_plan: bool = False
    stratified: bool = False
    half_order_norms: bool = False
    control: Control | None = None
    matching: Matching | None = None


class Stratified(random.Random):
    """A generator whose first random() is given."""

    def __init__(self, first: float, seed: int) -> None:
        super().__init__(seed)
        self._first: float | None = first

    def random(self) -> float:
        """The given number, then the generator's own."""
        first, self._first = self._first, None
        return super().random() if first is None else first


class PlanMethod(Method):
    """Draw a plan per sample (or per batch), roll out, pull back, one optimizer step."""

    @abstractmethod
    def plan(self, rng: random.Random) -> Plan:
        """Draw a plan. May depend on statistics of earlier steps, not on anything of this batch."""

    @abstractmethod
    def estimator(self) -> Estimator:
        """The settings that go with the plans."""

    def plans(self, seed: int, batch: Batch) -> list[Plan]:
        """One plan per sample, keyed by (seed, step, sample); antithetic partners share theirs."""
        settings, count = self.estimator(), len(batch.prompts)
        if settings.one_plan:
            return [self.plan(uniform("plan", seed, batch.step, -1))] * count
        each = 2 if settings.perturbation.paired else 1
        if settings.stratified:
            return self._stratified(seed, batch.step, count, each)
        return [self.plan(uniform("plan", seed, batch.step, b // each)) for b in range(count)]

    def _stratified(self, seed: int, step: int, count: int, each: int) -> list[Plan]:
        """Sample or pair b draws its first number from one of as many equal parts of [0, 1)."""
        rng, strata = uniform("strata", seed, step), (count + each - 1) // each
        order = rng.sample(range(strata), strata)
        drawn = [
            self.plan(Stratified((stratum + rng.random()) / strata, derived_seed("plan", seed, step, b)))
            for b, stratum in enumerate(order)
        ]
        return [drawn[b // each] for b in range(count)]

    def updates(self, engine: Engine, batch: Batch) -> Iterator[Report]:
        """One gradient from one rollout of the batch."""
        settings = self.estimator()
        plans = self.plans(engine.seed, batch)
        compared = any(p.has(Kind.HO, Kind.ZO) for p in plans)
        paired = settings.perturbation.paired
        settings.perturbation.check_pairs(batch.prompts)
        if compared:
            check_company(batch.prompts, settings.baseline, settings.divide, antithetic=paired)
        keep = not settings.half_order_norms  # which take samples one by one
        trajectory = engine.rollout(plans, batch, settings.perturbation, keep_graphs=keep)
        advantage = trajectory.signed
        if compared:
            advantage = advantages(
                trajectory.signed, batch.prompts, settings.baseline, settings.divide, antithetic=paired
            )
        weights = balanced(settings.weights, settings.balance, self.state)
        report = engine.gradient(
            trajectory,
            advantage,
            weights=weights,
            control=settings.control,
            matching=settings.matching,
            half_order_norms=settings.half_order_norms,
        )
        if settings.balance != "none":
            learn(report.terms, weights, settings.balance, self.state)
        for i, norm in report.half_order_norms.items():  # a running mean, for laws of the block's start
            self.state[i] = 0.9 * self.state[i] + 0.1 * norm if i in self.state else norm
        for i, fit in report.control_fits.items():  # running sums, for the control variate's scales
            key = f"control {i}"
            old = Sums(*self.state[key]).faded(FORGET) if key in self.state else Sums()
            self.state[key] = astuple(old + fit)  # plain values, as checkpoints want them
        yield report

    def control_scales(self) -> tuple[Scale, ...]:
        """The control variate's scales of every step, from earlier batches; none where nothing is known."""
        keys = (f"control {i}" for i in range(self.steps))
        return tuple(scale_of(Sums(*self.state[key])) if key in self.state else Scale() for key in keys)


def last_steps(kind_before: Kind, k: int, eta: tuple[float, ...]) -> Plan:
    """`kind_before` × (T - K), then FO × K."""
    steps = len(eta)
    head = (Segment(kind_before, 0, steps - k),) if k < steps else ()
    return Plan((*head, Segment(Kind.FO, steps - k, steps)), eta)
