"""Which steps REINFORCE and the RLR authors' code pull back, and at which weights."""

import random
from collections import Counter

import pytest

from bench.base.errors import BenchError
from bench.engine.batch import Batch
from bench.engine.plan import Kind
from methods.reinforce import Reinforce, ReinforceConfig
from methods.rlr_authors_code import RlrAuthorsCode, RlrAuthorsCodeConfig
from tests.support.toy import ToyChain
from tests.support.toys import batch_of, engine_of

STEPS = 8


def test_reinforce_pulls_back_every_step_or_as_many_as_are_drawn_at_t_over_that_weight() -> None:
    rng, all_steps = random.Random(0), Reinforce(ReinforceConfig(), STEPS)
    assert [(s.kind, s.weight) for s in all_steps.plan(rng).segments] == [(Kind.HO, 1.0)] * STEPS
    some, counts = Reinforce(ReinforceConfig(drawn=3), STEPS), Counter[int]()
    for _ in range(1000):
        plan = some.plan(rng)
        drawn = [s for s in plan.segments if s.kind is Kind.HO]
        assert [s.weight for s in drawn] == [STEPS / 3] * 3
        assert set(plan.eta) == {1.0}  # the noise law does not depend on the draw
        counts.update(s.start for s in drawn)
    p = 3 / STEPS
    assert all(abs(counts[i] - 1000 * p) <= 3 * (1000 * p * (1 - p)) ** 0.5 for i in range(STEPS))
    with pytest.raises(BenchError, match=r"reinforce.drawn is 9, but the chain has only 8 steps"):
        Reinforce(ReinforceConfig(drawn=9), STEPS)


def test_authors_code_draws_n_steps_before_the_last_and_counts_repetitions() -> None:
    method = RlrAuthorsCode(RlrAuthorsCodeConfig(n=5), STEPS)
    plans = [method.plan(0, step) for step in range(200)]
    weights: list[float] = []
    for plan in plans:
        drawn = [s.weight for s in plan.segments if s.kind is Kind.HO]
        assert sum(drawn) == 5
        weights += drawn
        assert plan.segment_at(STEPS - 1).kind is Kind.FO
        assert plan.eta == (1.0,) * (STEPS - 1) + (0.0,)
    assert max(weights) > 1
    assert len(set(plans)) > 100


def test_authors_code_refuses_what_it_cannot_whiten_or_draw_from() -> None:
    method = RlrAuthorsCode(RlrAuthorsCodeConfig(), STEPS)
    with pytest.raises(BenchError, match="needs at least 2 samples"):
        next(iter(method.updates(engine_of(ToyChain(STEPS)), Batch(("a",), 0))))
    with pytest.raises(BenchError, match="needs a step before the last"):
        RlrAuthorsCode(RlrAuthorsCodeConfig(), 1)


def test_authors_codes_weights_multiply_their_terms() -> None:
    def terms(fo: float, ho: float) -> tuple[float, float]:
        method = RlrAuthorsCode(RlrAuthorsCodeConfig(fo_weight=fo, ho_weight=ho), STEPS)
        report = next(iter(method.updates(engine_of(ToyChain(STEPS)), batch_of(8))))
        return report.terms["fo"].norm, report.terms["ho"].norm

    fo, ho = terms(1.0, 1.0)
    assert terms(0.05, 1e-3) == pytest.approx((0.05 * fo, 1e-3 * ho))
