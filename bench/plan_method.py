"""Methods that are a distribution over plans: everything but the plan is the same for all of them."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bench.advantages import Baseline, advantages
from bench.chain import Kind, Plan, Segment
from bench.engine import UNIT_WEIGHTS, Engine
from bench.method import Batch, Method, Report
from bench.rollout import Perturbation
from bench.streams import uniform


@dataclass(frozen=True)
class Estimator:
    """What a plan does not say: perturbation of ZO steps, baseline of HO and ZO, factor of each term.

    one_plan: the whole batch shares one draw of the plan, instead of one draw per sample. half_order_norms:
    keep a running mean of HO gradient norms by chain step in `state`.
    """

    perturbation: Perturbation = field(default_factory=Perturbation)
    baseline: Baseline = "loo"
    weights: Mapping[Kind, float] = field(default_factory=lambda: UNIT_WEIGHTS)
    one_plan: bool = False
    half_order_norms: bool = False


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
        each = 2 if settings.perturbation.antithetic else 1
        return [self.plan(uniform("plan", seed, batch.step, b // each)) for b in range(count)]

    def updates(self, engine: Engine, batch: Batch) -> Iterator[Report]:
        """One gradient from one rollout of the batch."""
        settings = self.estimator()
        plans = self.plans(engine.seed, batch)
        trajectory = engine.rollout(plans, batch, settings.perturbation)
        advantage = trajectory.signed
        if any(p.has(Kind.HO, Kind.ZO) for p in plans):
            antithetic = settings.perturbation.antithetic
            advantage = advantages(trajectory.signed, batch.prompts, settings.baseline, antithetic=antithetic)
        report = engine.gradient(
            trajectory, advantage, weights=settings.weights, half_order_norms=settings.half_order_norms
        )
        for i, norm in report.half_order_norms.items():  # a running mean, for laws of the block's start
            self.state[i] = 0.9 * self.state[i] + 0.1 * norm if i in self.state else norm
        yield report


def last_steps(kind_before: Kind, k: int, eta: tuple[float, ...]) -> Plan:
    """`kind_before` × (T - K), then FO × K."""
    steps = len(eta)
    head = (Segment(kind_before, 0, steps - k),) if k < steps else ()
    return Plan((*head, Segment(Kind.FO, steps - k, steps)), eta)
