"""RLR's plans: blocks, completions, and the law of starts."""

import math
import random
from collections import Counter
from typing import Any

import pytest

from bench.base.errors import BenchError
from bench.engine.batch import Batch
from bench.engine.plan import Kind, Plan
from methods.rlr import UNIFORM_SHARE, Rlr, RlrConfig

STEPS = 6


def rlr(**settings: Any) -> Rlr:
    """RLR on six steps."""
    return Rlr(RlrConfig.model_validate(settings), STEPS)


def drawn(method: Rlr, count: int = 300) -> list[Plan]:
    """Plans, seed fixed."""
    rng = random.Random(0)
    return [method.plan(rng) for _ in range(count)]


def block(plan: Plan) -> tuple[int, int]:
    """(start, stop) of its only half-order block."""
    (found,) = [(s.start, s.stop) for s in plan.segments if s.kind is Kind.HO]
    return found


@pytest.mark.parametrize("h", [1, 2, 5])
def test_terms_tile_the_chain_and_every_start_from_first_to_last_is_drawn(h: int) -> None:
    plans = drawn(rlr(h=h))
    assert {block(p)[0] for p in plans} == set(range(STEPS - h))
    for plan in plans:
        start, stop = block(plan)
        assert stop - start == h
        kinds = [plan.segment_at(i).kind for i in range(STEPS)]
        assert kinds[-1] is Kind.FO
        assert {kinds[i] for i in range(STEPS - 1) if not start <= i < stop} <= {Kind.ZO}
        assert [i for i, eta in enumerate(plan.eta) if eta > 0] == [stop - 1]
        assert all(s.weight == 1 for s in plan.segments)


def test_starts_are_uniform_by_default() -> None:
    counts = Counter(block(p)[0] for p in drawn(rlr(h=2), 4000))
    for j in range(STEPS - 2):
        assert abs(counts[j] - 1000) < 3 * math.sqrt(4000 * 0.25 * 0.75)


def test_without_a_block_there_is_neither_half_order_nor_noise() -> None:
    for plan in drawn(rlr(h=0), 20):
        assert [plan.segment_at(i).kind for i in range(STEPS)] == [Kind.ZO] * 5 + [Kind.FO]
        assert set(plan.eta) == {0.0}


def test_table_5_without_zo_and_without_both() -> None:
    assert {s.kind for p in drawn(rlr(h=2, completion="none")) for s in p.segments} == {
        Kind.SKIP,
        Kind.HO,
        Kind.FO,
    }
    for plan in drawn(rlr(h=0, completion="none"), 20):
        assert [plan.segment_at(i).kind for i in range(STEPS)] == [Kind.SKIP] * 5 + [Kind.FO]


def test_without_reward_gradient_the_last_step_is_zeroth_order_and_never_in_the_block() -> None:
    method = rlr(h=2, fo=False)
    assert not method.needs_reward_grad
    for plan in drawn(method):
        assert plan.segment_at(STEPS - 1).kind is Kind.ZO
        assert not plan.has(Kind.FO)


def test_resampled_blocks_tile_the_chain_with_noise_at_every_end_and_weight_1_over_p() -> None:
    plans = drawn(rlr(h=2, completion="resampled"))
    assert {block(p) for p in plans} == {(0, 1), (1, 3), (3, 5)}
    for plan in plans:
        assert [i for i, eta in enumerate(plan.eta) if eta > 0] == [0, 2, 4]
        start, stop = block(plan)
        assert plan.segment_at(start).weight == pytest.approx(3)
        assert all(plan.segment_at(i).kind is Kind.SKIP for i in range(5) if not start <= i < stop)
    assert {block(p) for p in drawn(rlr(h=2, completion="resampled", fo=False))} == {(0, 2), (2, 4), (4, 6)}


def test_law_of_starts_is_the_softmax_of_measured_norms() -> None:
    method = rlr(h=2, start="norms", temperature=2.0)
    assert method.probabilities() == [0.25] * 4
    method.state.update({0: 1.0, 1: 3.0, 3: 2.0, 4: 9.0})  # 2 not seen yet: as the mean; 4 is no start
    logits = [1.0, 3.0, 3.75, 2.0]
    weights = [math.exp(v / 2) for v in logits]
    assert method.probabilities() == pytest.approx([w / sum(weights) for w in weights])


def test_resampled_blocks_are_never_starved_by_the_norms() -> None:
    method = rlr(h=2, start="norms", completion="resampled")
    method.state.update({0: 1.0, 1: 500.0, 3: 2.0})
    assert min(method.probabilities()) >= UNIFORM_SHARE / 3
    assert sum(method.probabilities()) == pytest.approx(1)


def test_one_start_is_for_the_batch_and_one_per_sample_is_not() -> None:
    batch = Batch(("a",) * 16, 0)
    assert len({block(p) for p in rlr(h=1, one_start=True).plans(0, batch)}) == 1
    plans = rlr(h=1).plans(0, batch)
    assert len({block(p) for p in plans}) > 1
    assert plans == rlr(h=1).plans(0, batch)
    pairs = rlr(h=1, antithetic=True).plans(0, batch)
    assert pairs[::2] == pairs[1::2]


def test_start_range_is_inclusive() -> None:
    assert {block(p)[0] for p in drawn(rlr(h=1, start_range=(1, 3)))} == {1, 2, 3}


@pytest.mark.parametrize("fo", [True, False])
def test_blocks_lie_in_the_first_part_of_the_chain_and_only_they_have_noise(fo: bool) -> None:
    method = rlr(h=1, completion="resampled", fo=fo, until=0.5, drawn=None)
    for plan in drawn(method, 3):
        assert [s.start for s in plan.segments if s.kind is Kind.HO] == [0, 1, 2]
        assert [i for i, eta in enumerate(plan.eta) if eta > 0] == [0, 1, 2]
        assert plan.segment_at(3).kind is Kind.SKIP
    assert method.biased
    assert {block(p)[0] for p in drawn(rlr(h=2, until=0.4))} == {0, 1, 2}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"h": 6}, "rlr.h is 6, but only 5 steps lie before the last"),
        ({"h": 0, "completion": "resampled"}, "set rlr.h to 1 or more"),
        ({"h": 0, "completion": "none", "fo": False}, "leave nothing to estimate"),
        (
            {"h": 2, "start_range": (5, 9)},
            r"rlr.start_range \[5, 9\] holds no block start; there are 0 to 3 \(null",
        ),
    ],
)
def test_settings_that_do_not_fit_the_chain_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        rlr(**settings)


def test_stratified_starts_are_spread_over_the_batch_and_each_is_uniform() -> None:
    method = rlr(h=1, completion="resampled", stratified=True)
    counts = Counter(block(p)[0] for step in range(100) for p in method.plans(0, Batch(("a",) * 2, step)))
    for step in range(20):
        starts = [block(p)[0] for p in method.plans(0, Batch(("a",) * 10, step))]
        assert Counter(starts) == dict.fromkeys(range(5), 2)
    for start in range(5):  # over steps the order is random
        assert abs(counts[start] - 40) < 3 * math.sqrt(200 * 0.2 * 0.8)


def test_several_blocks_are_drawn_without_replacement_and_weighted() -> None:
    for plan in drawn(rlr(h=1, completion="resampled", drawn=2), 20):
        blocks = [s for s in plan.segments if s.kind is Kind.HO]
        assert len(blocks) == 2
        assert all(s.weight == pytest.approx(5 / 2) for s in blocks)


def test_first_order_steps_at_the_end_are_in_no_block() -> None:
    plans = drawn(rlr(h=2, fo_steps=3))
    assert {block(p)[0] for p in plans} == {0, 1}
    assert all([p.segment_at(i).kind for i in (3, 4, 5)] == [Kind.FO] * 3 for p in plans)
