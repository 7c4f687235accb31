"""Methods that re-use a batch of samples for several updates of PPO's clipped objective: DDPO and GRPO."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bench.base.errors import BenchError
from bench.base.lazy import torch
from bench.base.strict import Strict
from bench.engine.batch import Batch, Perturbation, Report
from bench.engine.likelihood_ratio import Ppo
from bench.engine.method import Method
from bench.engine.plan import Plan
from bench.engine.random_streams import uniform

if TYPE_CHECKING:
    from bench.engine.engine import Engine


class PpoConfig(Strict):
    """Settings of every method of this kind."""

    clip: float = Field(default=1e-4, gt=0, description="trust region 1 ± clip of the importance ratio")
    log_prob: Literal["mean", "sum"] = Field(default="mean", description="over latent dimensions")
    inner_epochs: int = Field(default=1, ge=1, description="passes over a batch of samples")
    minibatches: int = Field(default=1, ge=1, description="optimizer steps per pass")
    advantage_clamp: float | None = Field(
        default=5.0, gt=0, description="advantages are cut off there, after they are divided; null: nowhere"
    )
    eta: float = Field(default=1.0, gt=0, description="noise scale at every step")


class PpoMethod(Method):
    """Plans of one-step HO blocks, one rollout, inner_epochs × minibatches gradients."""

    needs_reward_grad = False
    perturbation = Perturbation()

    def __init__(self, config: PpoConfig, steps: int) -> None:
        """Any chain with noise will do."""
        super().__init__(config, steps)
        self.passes, self.updates_per_batch = config.inner_epochs, config.inner_epochs * config.minibatches

    @abstractmethod
    def plans(self, seed: int, batch: Batch) -> list[Plan]:
        """One plan per sample. Raises BenchError if the batch does not suit the method."""

    @abstractmethod
    def advantages(self, rewards: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Of a batch's rewards [B], higher is better: [B], not yet cut off."""

    def updates(self, engine: Engine, batch: Batch) -> Iterator[Report]:
        """One rollout, then inner_epochs × minibatches gradients of PPO's objective."""
        c: PpoConfig = self.config
        count = len(batch.prompts)
        if count % c.minibatches or count < 2:
            raise BenchError(
                f"{self.name} needs a batch of at least 2 samples that divides into {self.name}.minibatches="
                f"{c.minibatches}; it has {count} (train.prompts_per_step × train.samples_per_prompt)"
            )
        plans = self.plans(engine.seed, batch)
        trajectory = engine.rollout(plans, batch, self.perturbation, keep_graphs=c.minibatches == 1)
        advantage = self.advantages(trajectory.signed, batch.prompts)
        if c.advantage_clamp is not None:
            advantage = advantage.clamp(-c.advantage_clamp, c.advantage_clamp)
        ppo = Ppo(c.clip, mean=c.log_prob == "mean")
        rng = uniform(self.name, engine.seed, batch.step)
        for _ in range(c.inner_epochs):
            for include in _minibatches(count, c.minibatches, rng):
                yield engine.gradient(trajectory, advantage, ppo=ppo, include=include)


def _minibatches(count: int, parts: int, rng: random.Random) -> Iterator[torch.Tensor]:
    """Masks [count] of a random split into equal parts."""
    order = list(range(count))
    rng.shuffle(order)
    for n in range(parts):
        mask = torch.zeros(count, dtype=torch.bool)
        mask[order[n::parts]] = True
        yield mask
