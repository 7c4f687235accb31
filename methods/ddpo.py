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

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, final

from pydantic import Field

from bench.base.errors import BenchError
from bench.base.lazy import torch
from bench.base.strict import Strict
from bench.engine.advantages import group_statistics, whiten
from bench.engine.batch import Batch, Report
from bench.engine.likelihood_ratio import Ppo
from bench.engine.method import Method
from bench.engine.plan import Kind, tiled
from bench.engine.random_streams import uniform

if TYPE_CHECKING:
    from bench.engine.engine import Engine


class DdpoConfig(Strict):
    """Settings of DDPO."""

    clip: float = Field(default=1e-4, gt=0, description="trust region 1 ± clip of the importance ratio")
    log_prob: Literal["mean", "sum"] = Field(default="mean", description="over latent dimensions")
    inner_epochs: int = Field(default=1, ge=1, description="passes over a batch of samples")
    minibatches: int = Field(default=1, ge=1, description="optimizer steps per pass")
    advantage_clamp: float = Field(default=5.0, gt=0, description="whitened advantages are cut off there")
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
    eta: float = Field(default=1.0, gt=0, description="noise scale at every step")


@final
class Ddpo(Method):
    """HO(1) × T with PPO."""

    name: ClassVar[str] = "ddpo"
    look = ("green", "s", "dashed")
    Config: ClassVar[type[Strict]] = DdpoConfig
    biased = True
    needs_reward_grad = False

    def __init__(self, config: DdpoConfig, steps: int) -> None:
        """Any chain with noise will do."""
        super().__init__(config, steps)
        self.passes, self.updates_per_batch = config.inner_epochs, config.inner_epochs * config.minibatches

    def updates(self, engine: Engine, batch: Batch) -> Iterator[Report]:
        """One rollout, then inner_epochs × minibatches gradients of PPO's objective."""
        c: DdpoConfig = self.config
        count = len(batch.prompts)
        if count % c.minibatches or count < 2:
            raise BenchError(
                f"ddpo needs a batch of at least 2 samples that divides into ddpo.minibatches="
                f"{c.minibatches}; it has {count} (train.prompts_per_step × train.samples_per_prompt)"
            )
        if c.group and count == len(set(batch.prompts)):
            raise BenchError("ddpo.group compares samples of a prompt: raise train.samples_per_prompt")
        plan = tiled([Kind.HO] * self.steps, [c.eta] * self.steps)
        trajectory = engine.rollout([plan] * count, batch, keep_graphs=c.minibatches == 1)
        advantage = self._advantages(trajectory.signed, batch.prompts)
        ppo = Ppo(c.clip, mean=c.log_prob == "mean")
        rng = uniform("ddpo", engine.seed, batch.step)
        for _ in range(c.inner_epochs):
            for include in _minibatches(count, c.minibatches, rng):
                yield engine.gradient(trajectory, advantage, ppo=ppo, include=include)

    def _advantages(self, rewards: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Whitened with the prompt's running statistics, or with the batch's until there are enough."""
        c: DdpoConfig = self.config
        seen: dict[str, list[float]] = self.state
        mean = torch.full_like(rewards, float(rewards.mean()))
        std = torch.full_like(rewards, float(rewards.std(unbiased=False)))
        if c.group:
            number = {prompt: n for n, prompt in enumerate(dict.fromkeys(prompts))}
            return whiten(
                rewards, *group_statistics(rewards, [number[p] for p in prompts]), c.advantage_clamp
            )
        if c.per_prompt:
            for prompt, reward in zip(prompts, rewards.tolist(), strict=True):
                seen[prompt] = [*seen.setdefault(prompt, []), reward][-c.buffer :]
            for n, prompt in enumerate(prompts):
                if len(seen[prompt]) >= c.min_count:
                    values = torch.tensor(seen[prompt])
                    mean[n], std[n] = values.mean(), values.std(unbiased=False)
        return whiten(rewards, mean, std, c.advantage_clamp)


def _minibatches(count: int, parts: int, rng: random.Random) -> Iterator[torch.Tensor]:
    """Masks [count] of a random split into equal parts."""
    order = list(range(count))
    rng.shuffle(order)
    for n in range(parts):
        mask = torch.zeros(count, dtype=torch.bool)
        mask[order[n::parts]] = True
        yield mask
