from collections import Counter
from itertools import pairwise

import pytest

from bench.base.errors import BenchError
from bench.data.prompts import PromptSampler

TEN = [f"prompt {i}" for i in range(10)]


def steps(
    prompts: list[str], count: int, *, seed: int = 0, per_step: int, copies: int = 1
) -> list[tuple[str, ...]]:
    sampler = PromptSampler(prompts)
    return [
        sampler.batch(s, seed=seed, prompts_per_step=per_step, samples_per_prompt=copies)
        for s in range(count)
    ]


def test_a_batch_depends_on_seed_and_step_alone():
    in_order = steps(TEN, 12, per_step=3)
    for step in (11, 0, 7):  # a fresh sampler, or one that was elsewhere before, gives the same
        fresh = PromptSampler(TEN).batch(step, seed=0, prompts_per_step=3, samples_per_prompt=1)
        assert fresh == in_order[step]
    assert steps(TEN, 12, seed=1, per_step=3) != in_order


def test_the_order_is_pinned():
    """A change here would silently change every run: it needs a new schema version."""
    assert steps(TEN, 1, per_step=4)[0] == ("prompt 8", "prompt 7", "prompt 4", "prompt 2")


def test_samples_of_a_prompt_are_adjacent():
    batch = steps(TEN, 1, per_step=3, copies=4)[0]
    assert len(batch) == 12
    assert [len(set(batch[i : i + 4])) for i in (0, 4, 8)] == [1, 1, 1]
    assert len(set(batch)) == 3


@pytest.mark.parametrize("per_step", range(1, 11))
def test_no_step_repeats_a_prompt_and_every_epoch_shows_all(per_step):
    epoch = -(-10 // per_step)
    batches = steps(TEN, 4 * epoch, per_step=per_step)
    assert all(len(set(b)) == per_step for b in batches)
    for start in range(0, 4 * epoch, epoch):
        assert {p for b in batches[start : start + epoch] for p in b} == set(TEN)


def test_epochs_are_shuffled_anew():
    batches = steps(TEN, 4, per_step=10)
    assert len(set(batches)) == 4


def test_a_step_that_needs_more_prompts_than_there_are_repeats_them_evenly_side_by_side():
    batch = steps(["a", "b", "c"], 1, per_step=7, copies=2)[0]
    assert sorted(Counter(batch).values()) == [4, 4, 6]
    changes = sum(x != y for x, y in pairwise(batch))
    assert changes == 2


def test_nothing_to_sample_from_is_an_error():
    with pytest.raises(BenchError, match="no training prompts"):
        PromptSampler([])
