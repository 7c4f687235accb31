"""DDPO's passes, minibatches and per-prompt statistics."""

from typing import Any

import pytest
import torch

from bench.base.errors import BenchError
from bench.engine.batch import Batch
from methods.ddpo import Ddpo, DdpoConfig
from tests.support.toy import ToyChain
from tests.support.toys import batch_of, engine_of


def ddpo(**settings: Any) -> Ddpo:
    """DDPO on two steps."""
    return Ddpo(DdpoConfig.model_validate(settings), 2)


def test_every_pass_splits_the_batch_into_its_minibatches() -> None:
    engine = engine_of(ToyChain(2, 1))
    seen: list[torch.Tensor] = []
    gradient = engine.gradient

    def recorded(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["include"])
        return gradient(*args, **kwargs)

    engine.gradient = recorded
    reports = list(ddpo(inner_epochs=3, minibatches=2).updates(engine, batch_of(8)))
    assert len(reports) == len(seen) == 6
    for epoch in range(3):
        first, second = seen[2 * epoch : 2 * epoch + 2]
        assert torch.equal(first, ~second)
        assert int(first.sum()) == 4
    assert len({tuple(mask.tolist()) for mask in seen}) > 2


def test_a_batch_counts_its_rollout_once_and_later_updates_their_forwards() -> None:
    """A step of a later update runs at new parameters; one of the first because its graph was not kept."""
    first, second = ddpo(minibatches=2).updates(engine_of(ToyChain(2, 1)), batch_of(8))
    assert (first.forward, first.backward, first.again) == (8 * 2, 4 * 2, 4 * 2)
    assert (second.forward, second.backward, second.again) == (4 * 2, 4 * 2, 0)


def test_prompts_own_statistics_count_once_there_are_enough() -> None:
    method = ddpo(min_count=3, buffer=4)
    first = method.advantages(torch.tensor([1.0, 2.0, 5.0, 8.0]), ("a", "a", "b", "b"))
    mean, std = 4.0, torch.tensor([1.0, 2.0, 5.0, 8.0]).std(unbiased=False)
    torch.testing.assert_close(first, (torch.tensor([1.0, 2.0, 5.0, 8.0]) - mean) / std)
    rewards = torch.tensor([3.0, 6.0, 9.0])
    second = method.advantages(rewards, ("a", "a", "c"))
    own = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert second[:2].tolist() == pytest.approx(
        ((rewards[:2] - own.mean()) / own.std(unbiased=False)).tolist()
    )
    assert float(second[2]) == pytest.approx(float((9 - rewards.mean()) / rewards.std(unbiased=False)))
    method.advantages(torch.tensor([7.0]), ("a",))
    assert method.state["a"] == [2.0, 3.0, 6.0, 7.0]


def test_groups_are_whitened_by_themselves_and_leave_nothing_behind() -> None:
    method = ddpo(group=True)
    found = method.advantages(torch.tensor([1.0, 3.0, 8.0, 8.0, 2.0]), ("a", "a", "b", "b", "a"))
    a = torch.tensor([1.0, 3.0, 2.0])
    expected = (a - 2) / a.std(unbiased=False)
    assert found[[0, 1, 4]].tolist() == pytest.approx(expected.tolist())
    assert found[2:4].tolist() == [0, 0]  # equal rewards say nothing
    assert method.state == {}
    with pytest.raises(
        BenchError, match=r"ddpo\.group compares samples of a prompt: raise train\.samples_per"
    ):
        next(iter(method.updates(engine_of(ToyChain(2, 1)), Batch(("a", "b"), 0))))


@pytest.mark.parametrize("count", [1, 6])
def test_batch_that_does_not_divide_is_refused(count: int) -> None:
    settings = {"minibatches": 4} if count > 1 else {}
    batch = Batch(("a",) * count, 0)
    with pytest.raises(BenchError, match=r"divides into ddpo.minibatches.*train.prompts_per_step"):
        next(iter(ddpo(**settings).updates(engine_of(ToyChain(2, 1)), batch)))
