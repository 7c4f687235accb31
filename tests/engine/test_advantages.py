"""Baselines by hand."""

import pytest
import torch

from bench.base.errors import BenchError
from bench.engine.advantages import advantages, whiten

REWARDS = torch.tensor([1.0, 2.0, 4.0, 9.0])
PROMPTS = ("a", "a", "b", "b")


def test_no_baseline_is_the_reward_itself_and_a_copy() -> None:
    found = advantages(REWARDS, PROMPTS, "none")
    assert torch.equal(found, REWARDS)
    found += 1
    assert REWARDS[0] == 1


def test_leave_one_out_is_the_mean_of_the_others() -> None:
    assert advantages(REWARDS, PROMPTS, "loo").tolist() == pytest.approx([-4, 2 - 14 / 3, 0, 9 - 7 / 3])


def test_leave_one_out_per_prompt_compares_within_the_prompt_wherever_its_samples_stand() -> None:
    assert advantages(REWARDS, PROMPTS, "loo_prompt").tolist() == [-1, 1, -5, 5]
    assert advantages(REWARDS, ("a", "b", "a", "b"), "loo_prompt").tolist() == [-3, -7, 3, 7]


def test_antithetic_partner_enters_neither_of_the_two_baselines() -> None:
    assert advantages(REWARDS, PROMPTS, "loo", antithetic=True).tolist() == [-5.5, -4.5, 2.5, 7.5]
    six = torch.tensor([1.0, 2, 4, 9, 0, 6])
    found = advantages(six, ("a",) * 4 + ("b",) * 2, "loo", antithetic=True)
    assert found.tolist() == pytest.approx([1 - 19 / 4, 2 - 19 / 4, 4 - 9 / 4, 9 - 9 / 4, -4, 2])


@pytest.mark.parametrize(
    ("rewards", "prompts", "baseline", "antithetic", "message"),
    [
        ([1.0], ("a",), "loo", False, "another sample in the batch.*samples_per_prompt.*'none'"),
        ([1.0, 2.0], ("a", "b"), "loo_prompt", False, "another sample of its prompt"),
        ([1.0, 2.0], ("a", "a"), "loo", True, "another pair in the batch"),
        ([1.0, 2.0, 3.0, 4.0], ("a", "a", "b", "b"), "loo_prompt", True, "another pair of its prompt"),
    ],
)
def test_sample_without_company_is_an_error_that_says_so(
    rewards: list[float], prompts: tuple[str, ...], baseline: str, antithetic: bool, message: str
) -> None:
    with pytest.raises(BenchError, match=message):
        advantages(torch.tensor(rewards), prompts, baseline, antithetic=antithetic)  # pyright: ignore[reportArgumentType]


def test_leave_one_out_does_not_depend_on_a_samples_own_reward() -> None:
    for baseline in ("loo", "loo_prompt"):
        changed = REWARDS.clone()
        changed[2] += 5
        difference = advantages(changed, PROMPTS, baseline) - advantages(REWARDS, PROMPTS, baseline)
        assert float(difference[2]) == 5


def test_whitening_has_a_floor_and_a_ceiling() -> None:
    mean, std = torch.full((4,), 4.0), torch.tensor([2.0, 2.0, 0.0, 0.5])
    assert whiten(REWARDS, mean, std, 5.0).tolist() == [-1.5, -1.0, 0.0, 5.0]
