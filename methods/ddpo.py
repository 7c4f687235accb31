"""DDPO: REINFORCE on every step of a stochastic chain, with PPO-clipped re-use of the samples.

Source: Black et al. 2023 (DDPO-IS), its PyTorch code and TRL. Every step injects noise (eta = 1) and is a
one-step HO block; advantages are whitened, per prompt once a prompt has been seen often enough. The first
update of a batch is the plain likelihood-ratio gradient of the whitened reward; whitening rescales it (by
about 1/std, a little less in small batches) and later updates are clipped, so the estimator counts as biased.

Differs from the authors' code: log-probabilities can be summed over latent dimensions (`log_prob: sum`, the
true likelihood ratio) or averaged (`mean`, theirs, hence their clip of 1e-4); x is kept in float32, so the
first ratio is 1; all steps of a batch are pulled back before the optimizer moves; steps are summed, where
theirs average over them, so that their gradient norm of 1 is T here. `group` takes the statistics of a prompt
from the batch alone, as GRPO does (Shao et al. 2024): running ones come alive with few prompts (theirs: 45).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

from pydantic import Field

from bench.base.errors import BenchError
from bench.base.lazy import torch
from bench.base.strict import Strict
from bench.engine.advantages import advantages, divided
from bench.engine.batch import Batch
from bench.engine.plan import Kind, Plan, tiled
from bench.engine.ppo_method import PpoConfig, PpoMethod


class DdpoConfig(PpoConfig):
    """Settings of DDPO."""

    per_prompt: bool = Field(default=True, description="whiten with a prompt's own statistics when known")
    group: bool = Field(
        default=False,
        description="whiten with the statistics of the prompt's samples in the batch, for prompt sets too "
        "large to meet a prompt often; takes train.samples_per_prompt of 2 or more",
    )
    buffer: int = Field(default=32, ge=2, description="rewards kept per prompt")
    min_count: int = Field(
        default=16, ge=2, description="rewards needed before a prompt's own statistics count"
    )


@final
class Ddpo(PpoMethod):
    """HO(1) × T with PPO."""

    name: ClassVar[str] = "ddpo"
    look = ("green", "s", "dashed")
    Config: ClassVar[type[Strict]] = DdpoConfig
    biased = True

    def plans(self, seed: int, batch: Batch) -> list[Plan]:
        """Noise at every step, and all of them are HO."""
        if self.config.group and len(batch.prompts) == len(set(batch.prompts)):
            raise BenchError("ddpo.group compares samples of a prompt: raise train.samples_per_prompt")
        return [tiled([Kind.HO] * self.steps, [self.config.eta] * self.steps)] * len(batch.prompts)

    def advantages(self, rewards: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Whitened with the prompt's running statistics, or with the batch's until there are enough."""
        c: DdpoConfig = self.config
        if c.group:
            return advantages(rewards, prompts, "mean_prompt", "prompt")
        if not c.per_prompt:
            return advantages(rewards, prompts, "mean", "batch")
        seen: dict[str, list[float]] = self.state
        mean = torch.full_like(rewards, float(rewards.mean()))
        std = torch.full_like(rewards, float(rewards.std(unbiased=False)))
        for prompt, reward in zip(prompts, rewards.tolist(), strict=True):
            seen[prompt] = [*seen.setdefault(prompt, []), reward][-c.buffer :]
        for n, prompt in enumerate(prompts):
            if len(seen[prompt]) >= c.min_count:
                values = torch.tensor(seen[prompt])
                mean[n], std[n] = values.mean(), values.std(unbiased=False)
        return divided(rewards - mean, std)
