"""Advantages: rewards minus a baseline, over a standard deviation; of the batch or of a prompt's samples.

The samples of a prompt in one batch are its group (`train.samples_per_prompt` of them), as GRPO calls it
(Shao et al. 2024, arXiv:2402.03300).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator

from bench.base.errors import BenchError
from bench.base.lazy import torch
from bench.base.strict import Strict

Baseline = Literal["none", "loo", "loo_prompt", "mean", "mean_prompt"]
Divisor = Literal["none", "batch", "prompt"]


class AdvantageConfig(Strict):
    """The settings of advantages, the same for all methods that have any."""

    baseline: Baseline = Field(
        default="loo",
        description="what is subtracted from a reward: none; loo, the mean of the batch's other samples; "
        "loo_prompt, that of the prompt's others; mean and mean_prompt, with the sample itself (biased)",
    )
    divide: Divisor = Field(
        default="none",
        description="what the difference is divided by: none; batch or prompt, the standard deviation of "
        "the batch's rewards or of the prompt's (biased)",
    )

    @property
    def biased_advantages(self) -> bool:
        """Whether they change the length of the gradient, or weigh prompts against each other."""
        return self.divide != "none" or self.baseline in ("mean", "mean_prompt")


class ImitationConfig(AdvantageConfig):
    """The settings of methods that imitate samples as far as their advantages say."""

    baseline: Baseline = Field(
        default="loo_prompt", description=AdvantageConfig.model_fields["baseline"].description
    )
    divide: Divisor = Field(default="batch", description=AdvantageConfig.model_fields["divide"].description)
    advantage_max: float = Field(default=5.0, gt=0, description="A_max: advantages are cut off there")

    @field_validator("baseline")
    @classmethod
    def _some_are_worse(cls, baseline: Baseline) -> Baseline:
        if baseline == "none":
            raise ValueError("without a baseline all samples of a positive reward would be imitated alike")
        return baseline

    def shares(self, rewards: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Advantages as shares of A_max, [B] in −1 … 1. rewards: [B], higher is better."""
        return (advantages(rewards, prompts, self.baseline, self.divide) / self.advantage_max).clamp(-1, 1)


def advantages(
    rewards: torch.Tensor,
    prompts: Sequence[str],
    baseline: Baseline,
    divide: Divisor = "none",
    *,
    antithetic: bool = False,
) -> torch.Tensor:
    """(R - b) / s for a batch. rewards: [B], higher is better; prompts: one per sample.

    The names are those of `AdvantageConfig`; baseline none and divide none are the RLR paper's form. A mean
    of n samples that contains the sample itself shrinks the gradient by 1 - 1/n; an antithetic partner
    (samples 2k and 2k+1) shares the sample's noise, so neither of the two enters the other's `loo`. Raises
    BenchError when a sample has nobody to be compared with.
    """
    unit = torch.arange(len(rewards), device=rewards.device) // (2 if antithetic else 1)
    number = {p: n for n, p in enumerate(dict.fromkeys(prompts))}
    prompt = torch.tensor([number[p] for p in prompts], device=rewards.device)
    batch, of_prompt = torch.zeros_like(unit), baseline in ("loo_prompt", "mean_prompt")
    group = prompt if of_prompt else batch
    check_company(prompts, baseline, divide, antithetic=antithetic)
    if baseline == "none":
        centred = rewards.clone()
    elif baseline in ("loo", "loo_prompt"):
        centred = _left_out(rewards, unit, group)
    else:
        centred = rewards - (_mean_of(prompt, rewards) if of_prompt else rewards.mean())
    if divide == "none":
        return centred
    if divide == "batch":
        return divided(centred, rewards.std(unbiased=False))
    return divided(centred, _mean_of(prompt, (rewards - _mean_of(prompt, rewards)) ** 2).sqrt())


def divided(centred: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """centred / std, which is floored at 1e-6: rewards that are equal say nothing. centred: [B]."""
    return centred / std.clamp(min=1e-6)


def check_company(
    prompts: Sequence[str], baseline: Baseline, divide: Divisor, *, antithetic: bool = False
) -> None:
    """Raise BenchError if a sample of a batch with these prompts has nobody to be compared with."""
    if baseline == divide == "none":
        return
    of_prompt = "prompt" in f"{baseline} {divide}"
    groups = Counter(prompts).values() if of_prompt else [len(prompts)]
    if min(groups) > (2 if antithetic else 1):  # pairs share a prompt, so they lie within groups
        return
    more = "train.samples_per_prompt" if of_prompt else "train.samples_per_prompt or train.prompts_per_step"
    raise BenchError(
        f"advantages (baseline '{baseline}', divided by '{divide}') need another "
        f"{'pair' if antithetic else 'sample'} {'of its prompt' if of_prompt else 'in the batch'} to compare "
        f"with: raise {more}"
    )


def _left_out(rewards: torch.Tensor, unit: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """Rewards minus the mean of the other units of their group, by number. All [B]."""
    ones, centred = torch.ones_like(rewards), rewards - rewards.mean()  # differences lose fewer digits
    count = _by(group, ones) - _by(unit, ones)
    return centred - (_by(group, centred) - _by(unit, centred)) / count


def _mean_of(group: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """For every sample, the mean of the values [B] of its group, by number [B]."""
    return _by(group, values) / _by(group, torch.ones_like(values))


def _by(label: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """For every sample, the sum of the values [B] with its label [B].

    On the CPU wherever they are: a GPU would add them in another order each time.
    """
    place = label.cpu()
    sums = torch.zeros(int(place.max()) + 1, dtype=values.dtype)
    return sums.index_add(0, place, values.cpu())[place].to(values.device)
