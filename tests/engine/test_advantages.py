"""Baselines by hand."""

import pytest
import torch

from bench.base.errors import BenchError
from bench.engine.advantages import AdvantageConfig, advantages

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
        (
            [1.0],
            ("a",),
            "loo",
            False,
            "another sample in the batch.*samples_per_prompt or train.prompts_per_step",
        ),
        ([1.0, 2.0], ("a", "b"), "loo_prompt", False, "another sample of its prompt"),
        ([1.0, 2.0], ("a", "b"), "mean_prompt", False, "another sample of its prompt"),
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


def test_means_contain_the_sample_itself_and_shrink_what_leave_one_out_gives() -> None:
    assert advantages(REWARDS, PROMPTS, "mean").tolist() == [-3, -2, 0, 5]
    assert advantages(REWARDS, PROMPTS, "mean_prompt").tolist() == [-0.5, 0.5, -2.5, 2.5]
    for own, others, size in (("mean", "loo", 4), ("mean_prompt", "loo_prompt", 2)):
        left_out = advantages(REWARDS, PROMPTS, others)  # pyright: ignore[reportArgumentType]
        found = advantages(REWARDS, PROMPTS, own)  # pyright: ignore[reportArgumentType]
        torch.testing.assert_close(found, (1 - 1 / size) * left_out)


def test_standard_deviations_are_those_of_the_rewards_whatever_the_baseline() -> None:
    for baseline in ("none", "loo", "loo_prompt", "mean", "mean_prompt"):
        plain = advantages(REWARDS, PROMPTS, baseline)
        batch = advantages(REWARDS, PROMPTS, baseline, "batch")
        torch.testing.assert_close(batch, plain / REWARDS.std(unbiased=False))
        prompt = advantages(REWARDS, PROMPTS, baseline, "prompt")
        torch.testing.assert_close(prompt, plain / torch.tensor([0.5, 0.5, 2.5, 2.5]))


def test_prompts_of_equal_rewards_say_nothing_and_prompts_may_stand_anywhere() -> None:
    rewards, prompts = torch.tensor([1.0, 8.0, 3.0, 8.0, 2.0]), ("a", "b", "a", "b", "a")
    found = advantages(rewards, prompts, "mean_prompt", "prompt")
    a = torch.tensor([1.0, 3.0, 2.0])
    assert found[[0, 2, 4]].tolist() == pytest.approx(((a - 2) / a.std(unbiased=False)).tolist())
    assert found[[1, 3]].tolist() == [0, 0]


def test_settings_that_shrink_or_rescale_say_that_they_are_biased() -> None:
    assert not any(AdvantageConfig(baseline=b).biased_advantages for b in ("none", "loo", "loo_prompt"))
    assert AdvantageConfig(baseline="mean").biased_advantages
    assert AdvantageConfig(baseline="mean_prompt").biased_advantages
    assert AdvantageConfig(divide="batch").biased_advantages
    assert AdvantageConfig(baseline="none", divide="prompt").biased_advantages
