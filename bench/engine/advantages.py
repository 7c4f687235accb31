"""Advantages A = R - b: which baseline, over which samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from bench.base.errors import BenchError
from bench.base.lazy import torch

Baseline = Literal["none", "loo", "loo_prompt"]


def advantages(
    rewards: torch.Tensor, prompts: Sequence[str], baseline: Baseline, *, antithetic: bool = False
) -> torch.Tensor:
    """R - b for a batch. rewards: [B], higher is better; prompts: one per sample.

    none: b = 0, the paper's form. loo: the mean of the other samples. loo_prompt: the mean of the prompt's
    other samples. A self-inclusive mean would shrink the gradient by 1 - 1/B; an antithetic partner (samples
    2k and 2k+1) shares the sample's noise, so neither of the two enters the other's baseline. Raises
    BenchError when a sample has nobody to be compared with.
    """
    if baseline == "none":
        return rewards.clone()
    unit = torch.arange(len(rewards), device=rewards.device) // (2 if antithetic else 1)
    group = torch.zeros_like(unit)
    if baseline == "loo_prompt":
        number = {p: n for n, p in enumerate(dict.fromkeys(prompts))}
        group = torch.tensor([number[p] for p in prompts], device=rewards.device)
    ones = torch.ones_like(rewards)
    count = _by(group, ones) - _by(unit, ones)  # pairs share a prompt, so units lie within groups
    if bool((count == 0).any()):
        what = "of its prompt" if baseline == "loo_prompt" else "in the batch"
        raise BenchError(
            f"baseline '{baseline}' needs another {'pair' if antithetic else 'sample'} {what} to compare "
            "with: raise train.samples_per_prompt or train.prompts_per_step, or set baseline to 'none'"
        )
    centred = rewards - rewards.mean()  # sums of differences lose fewer digits
    return centred - (_by(group, centred) - _by(unit, centred)) / count


def group_statistics(rewards: torch.Tensor, group: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (of the group itself, not an estimate) of each sample's group, both [B].

    group: the number of each sample's group.
    """
    label = torch.tensor(group, device=rewards.device)
    count = _by(label, torch.ones_like(rewards))
    mean = _by(label, rewards) / count
    return mean, (_by(label, (rewards - mean) ** 2) / count).sqrt()


def _by(label: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """For every sample, the sum of the values [B] with its label [B].

    On the CPU wherever they are: a GPU would add them in another order each time.
    """
    place = label.cpu()
    sums = torch.zeros(int(place.max()) + 1, dtype=values.dtype)
    return sums.index_add(0, place, values.cpu())[place].to(values.device)


def whiten(rewards: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, clamp: float) -> torch.Tensor:
    """DDPO's advantages: (R - mean) / std, cut off at ± clamp. All [B]; std is floored at 1e-6."""
    return ((rewards - mean) / std.clamp(min=1e-6)).clamp(-clamp, clamp)
