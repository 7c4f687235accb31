"""Plans: what is refused, and what follows from one."""

from collections.abc import Callable

import pytest
import torch

from bench.engine.chain import State
from bench.engine.plan import Kind, Plan, Segment, tiled

FO, HO, ZO, SKIP, PASS, DI = Kind.FO, Kind.HO, Kind.ZO, Kind.SKIP, Kind.PASS, Kind.DI


@pytest.mark.parametrize(
    ("segments", "eta", "message"),
    [
        ((), (), "at least one segment"),
        ((Segment(FO, 1, 3),), (0, 0, 0), "does not start at step 0"),
        ((Segment(ZO, 0, 1), Segment(FO, 2, 3)), (0, 0, 0), "does not start at step 1"),
        ((Segment(ZO, 0, 2), Segment(FO, 1, 3)), (0, 0, 0), "does not start at step 2"),
        ((Segment(ZO, 0, 0), Segment(FO, 0, 3)), (0, 0, 0), "does not start at step 0"),
        ((Segment(FO, 0, 2),), (0, 0, 0), "cover 2 steps, eta has 3"),
        ((Segment(FO, 0, 3),), (0, -0.1, 0), "negative"),
        ((Segment(FO, 0, 3, weight=0.0),), (0, 0, 0), "weight 0"),
        ((Segment(FO, 0, 1), Segment(ZO, 1, 3)), (0, 0, 0), "must touch the end"),
        ((Segment(DI, 0, 1), Segment(HO, 1, 2), Segment(FO, 2, 3)), (0, 1, 0), "must touch the end"),
        ((Segment(PASS, 0, 1), Segment(SKIP, 1, 2), Segment(FO, 2, 3)), (0, 0, 0), "must touch the end"),
        ((Segment(Kind.AM, 0, 2), Segment(Kind.REF, 2, 3)), (1, 0, 1), "eta > 0 at all"),
        ((Segment(HO, 0, 2), Segment(FO, 2, 3)), (1, 0, 0), "needs eta > 0 at its last step 1"),
    ],
)
def test_plan_that_makes_no_sense_is_refused(
    segments: tuple[Segment, ...], eta: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(segments, eta)


def test_plan_knows_its_steps_kinds_and_segments() -> None:
    plan = Plan((Segment(SKIP, 0, 2), Segment(FO, 2, 3), Segment(PASS, 3, 4)), (0, 0, 1, 0))
    assert plan.steps == 4
    assert [plan.segment_at(i).kind for i in range(4)] == [SKIP, SKIP, FO, PASS]
    assert plan.has(FO)
    assert plan.has(HO, PASS)
    assert not plan.has(HO, ZO)


def test_multistep_memory_is_forgotten_first_and_after_every_stochastic_step() -> None:
    plan = Plan((Segment(ZO, 0, 1), Segment(HO, 1, 3), Segment(FO, 3, 5)), (0, 0, 0.1, 0, 1))
    assert plan.resets() == (True, False, False, True, False)


def test_tiled_joins_equal_kinds_but_keeps_half_order_steps_apart() -> None:
    plan = tiled([SKIP, SKIP, HO, HO, PASS, FO, FO], [1] * 7)
    assert [(s.kind, s.start, s.stop) for s in plan.segments] == [
        (SKIP, 0, 2),
        (HO, 2, 3),
        (HO, 3, 4),
        (PASS, 4, 5),
        (FO, 5, 7),
    ]


@pytest.mark.parametrize("change", [lambda s, r: s.select(r), lambda s, r: s.reset(r.bool().tolist())])
def test_state_without_memory_needs_none(change: Callable[[State, torch.Tensor], State]) -> None:
    changed = change(State(torch.arange(2.0)[:, None]), torch.tensor([1, 0]))
    assert changed.history is None
    assert len(changed.x) == 2


def test_reset_forgets_only_the_rows_named() -> None:
    state = State(torch.zeros(3, 1), torch.ones(3, 1), torch.tensor([True, True, False]))
    after = state.reset([True, False, False])
    assert after.valid is not None
    assert after.valid.tolist() == [False, True, False]
    picked = state.select(torch.tensor([2, 0]))
    assert picked.valid is not None
    assert picked.valid.tolist() == [False, True]
