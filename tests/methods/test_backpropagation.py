"""Which steps the backpropagating methods keep."""

import random
from collections import Counter
from statistics import NormalDist
from typing import Any

import pytest

from bench.base import registry
from bench.base.errors import BenchError
from bench.engine.plan import Kind, Plan
from bench.engine.plan_method import PlanMethod

STEPS = 10
FO, SKIP, PASS, DI = Kind.FO, Kind.SKIP, Kind.PASS, Kind.DI


def make(name: str, **settings: Any) -> PlanMethod:
    """The method on ten steps."""
    cls = registry.load("method", name)
    return cls(cls.Config(**settings), STEPS)


def kinds(plan: Plan) -> list[Kind]:
    """Of every step."""
    return [plan.segment_at(i).kind for i in range(plan.steps)]


def drawn(method: PlanMethod, count: int = 400) -> list[Plan]:
    """Plans, seed fixed."""
    rng = random.Random(0)
    return [method.plan(rng) for _ in range(count)]


def test_truncated_bp_keeps_the_last_k_steps_and_full_bp_all() -> None:
    assert kinds(drawn(make("truncated_bp", k=3))[0]) == [SKIP] * 7 + [FO] * 3
    assert kinds(drawn(make("truncated_bp", k=STEPS))[0]) == kinds(drawn(make("full_bp"))[0]) == [FO] * 10
    with pytest.raises(BenchError, match=r"truncated_bp.k is 11, but the chain has only 10"):
        make("truncated_bp", k=11)


def test_weighted_truncation_covers_step_k_with_its_survival_probability_and_weights_by_its_inverse() -> None:
    method = make("truncated-bp-weighted", k_min=2, decay=0.5, floor=0.2)
    survival = [1, 1, 0.5, 0.25] + [0.2] * 6
    plans = drawn(method, 2000)
    for k, p in enumerate(survival, start=1):
        covered = [s for plan in plans if (s := plan.segment_at(STEPS - k)).kind is FO]
        assert abs(len(covered) - 2000 * p) <= 3 * (2000 * p * (1 - p)) ** 0.5
        assert {s.weight for s in covered} == {1 / p}
        assert all(s.stop - s.start == 1 for s in covered)
    assert all(kinds(plan) == sorted(kinds(plan), key=(SKIP, FO).index) for plan in plans)
    with pytest.raises(BenchError, match=r"truncated-bp-weighted.k_min is 11, but the chain has only 10"):
        make("truncated-bp-weighted", k_min=11)


def test_alignprop_draws_its_cut_as_the_authors_code_for_the_whole_batch() -> None:
    """N(42, 5) of 50, rounded down and drawn again until it is one of 1 to 49."""
    cls = registry.load("method", "alignprop")
    method, law, count = cls(cls.Config(), 50), NormalDist(42, 5), 4000
    plans = [kinds(p) for p in drawn(method, count)]
    lengths = Counter(p.count(FO) for p in plans)
    assert all(p == sorted(p, key=(SKIP, FO).index) for p in plans)
    for k, found in lengths.items():
        share = (law.cdf(51 - k) - law.cdf(50 - k)) / (law.cdf(50) - law.cdf(1))
        assert abs(found - count * share) < 4 * (count * share) ** 0.5 + 1
    assert 0.02 < lengths[1] / count < 0.034  # the last step alone
    assert method.estimator().one_plan


def test_alignprop_backpropagates_a_chain_of_one_step_and_refuses_a_cut_outside_of_the_chain() -> None:
    cls = registry.load("method", "alignprop")
    assert kinds(drawn(cls(cls.Config(), 1))[0]) == [FO]
    with pytest.raises(BenchError, match=r"cut_mean 1 and cut_std 0 hardly ever cut a chain of 10 steps"):
        make("alignprop", cut_mean=1.0, cut_std=0.0)


def test_alignprops_mask_keeps_step_i_with_probability_i_over_t_for_the_whole_batch() -> None:
    method = make("alignprop", truncation="mask")
    plans = [kinds(p) for p in drawn(method, 1000)]
    for i in range(STEPS - 1):
        share = sum(p[i] is FO for p in plans) / 1000
        assert abs(share - i / STEPS) < 3 * 0.5 / 1000**0.5
    assert all(p[-1] is FO for p in plans)
    assert {k for p in plans for k in p} == {FO, PASS}
    assert method.estimator().one_plan


def test_vader_backpropagates_from_a_step_to_the_end() -> None:
    assert kinds(drawn(make("vader"))[0]) == [SKIP] * 9 + [FO]
    assert kinds(drawn(make("vader", mode="specific", step=4))[0]) == [SKIP] * 4 + [FO] * 6
    plans = [kinds(p) for p in drawn(make("vader", mode="rand"), 2000)]
    starts = [p.index(FO) for p in plans]
    assert all(p == [SKIP] * start + [FO] * (10 - start) for p, start in zip(plans, starts, strict=True))
    for step in range(STEPS):
        assert abs(starts.count(step) / 2000 - 0.1) < 4 * (0.09 / 2000) ** 0.5


def test_vaders_single_step_keeps_the_linear_path_behind_it() -> None:
    plans = [kinds(p) for p in drawn(make("vader", mode="single"), 200)]
    starts = [p.index(FO) for p in plans]
    assert all(p == [SKIP] * i + [FO] + [PASS] * (9 - i) for p, i in zip(plans, starts, strict=True))
    assert set(starts) == set(range(STEPS))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "specific"}, "the mode needs it"),
        ({"mode": "rand", "step": 3}, "vader.step goes with vader.mode=specific"),
        ({"mode": "specific", "step": 10}, "steps are 0 to 9"),
    ],
)
def test_vaders_step_goes_with_its_mode(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        make("vader", **settings)


@pytest.mark.parametrize("k", [1, 3, 4])
def test_drtune_trains_k_even_steps_from_a_random_offset_and_passes_x_on_between_them(k: int) -> None:
    plans = [kinds(p) for p in drawn(make("drtune", k=k, first=None))]
    each, offsets = STEPS // k, set[int]()
    for plan in plans:
        trained = [i for i, kind in enumerate(plan) if kind is DI]
        assert trained == list(range(trained[0], trained[0] + k * each, each))
        rest = [kind for kind in plan[trained[0] :] if kind is not DI]
        assert plan[: trained[0]] == [SKIP] * trained[0] and set(rest) <= {PASS}
        offsets.add(trained[0])
    assert offsets == set(range(STEPS - (k - 1) * each))


def test_drtune_stops_early_with_a_prediction_and_trains_k_of_the_steps_that_run() -> None:
    plans = drawn(make("drtune", k=3, first=0.35))
    assert {p.readout for p in plans} == {4, 5, 6, 7, 8, 9}
    for plan in plans:
        assert plan.readout is not None and plan.steps == plan.readout + 1
        assert kinds(plan).count(DI) == 3
    everywhere = drawn(make("drtune", k=None, first=0.8, eta=1.0), 1)[0]
    assert kinds(everywhere) == [DI] * everywhere.steps
    assert everywhere.eta == (*[1.0] * (everywhere.steps - 1), 0.0)
    few = drawn(make("drtune", k=10, first=0.2))
    assert all(kinds(plan) == [DI] * plan.steps for plan in few)
    with_noise = drawn(make("drtune", k=1, first=0.0, eta=1.0))
    assert all(any(plan.eta) for plan in with_noise)  # a step before the prediction's, for a KL term
    assert make("drtune").estimator().one_plan
    with pytest.raises(BenchError, match=r"drtune.k is 11, but the chain has only 10"):
        make("drtune", k=11)
