"""GRPO for diffusion and flow models: PPO on a stochastic chain, advantages within a prompt's samples.

Source: Flow-GRPO (Liu et al. 2025, arXiv:2505.05470) and DanceGRPO (Xue et al. 2025, arXiv:2505.07818); GRPO
itself is Shao et al. 2024 (arXiv:2402.03300). Every step injects noise and is a one-step HO block. A reward
is centred by the mean of the prompt's samples and divided by the standard deviation of the whole batch, as
Flow-GRPO does; `divide: prompt` is DanceGRPO's. `common_noise` is DanceGRPO's, too: the samples of a prompt
start from the same x_T. `step_fraction` pulls back a part of a sample's noisy steps, drawn without
replacement and weighted by 1/fraction (DanceGRPO's 0.6, there without the weight).

`window` injects noise in so many steps alone, and only these are pulled back; the other steps follow the
deterministic solver. `slides` moves the window from the noisy end on, a step further every `slide_every`
batches, and begins again (MixGRPO, Li et al. 2025, arXiv:2507.21802, where it stays at the end). `drawn`
draws its place for every prompt and batch: with one step and `common_noise` a prompt's samples share their
chain up to that step, where they branch (TempFlow-GRPO, He et al. 2025, arXiv:2508.04324).

The first gradient of a batch is a likelihood ratio's: unbiased if noise is at every step, baseline and
divisor are so (`loo_prompt` or `loo`, `none`), nothing is cut off (`advantage_clamp: null`), and
log-probabilities are summed. A window estimates the share of its own steps in the gradient of a reward whose
noise is injected there, and drops that of the others; so does `until`.

Differs from the authors' code: steps are summed instead of averaged, and all of them are pulled back before
the optimizer moves; the KL term is left to the settings of training; the mean over a batch is not weighted by
noise levels, as TempFlow-GRPO's is; what a prompt's samples share of the chain is run for each of them; none
of them is dropped for its reward; the last step is trained as others are, where Flow-GRPO leaves it out (its
`timestep_fraction` of 0.99); no running mean of the weights is kept, which theirs evaluate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, final

from pydantic import Field

from bench.base.errors import BenchError
from bench.base.lazy import torch
from bench.base.strict import Strict
from bench.engine.advantages import AdvantageConfig, Baseline, Divisor, advantages, check_company
from bench.engine.batch import Batch, Perturbation
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.ppo_method import PpoConfig, PpoMethod
from bench.engine.random_streams import uniform


class GrpoConfig(PpoConfig, AdvantageConfig):
    """Settings of GRPO."""

    baseline: Baseline = Field(
        default="mean_prompt", description=AdvantageConfig.model_fields["baseline"].description
    )
    divide: Divisor = Field(default="batch", description=AdvantageConfig.model_fields["divide"].description)
    window: int | None = Field(
        default=None, ge=1, description="so many steps inject noise and are pulled back; null: all"
    )
    window_moves: Literal["slides", "drawn"] = Field(
        default="slides",
        description="slides: from the noisy end on, over training; drawn: to a random place, for every "
        "prompt and batch",
    )
    slide_every: int = Field(default=25, ge=1, description="batches between two moves of a sliding window")
    until: float = Field(
        default=1.0, gt=0, le=1, description="noise in this share of the chain, at its noisy end, alone"
    )
    step_fraction: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of the noisy steps that is pulled back, drawn for every sample, each weighted by "
        "its inverse",
    )
    common_noise: bool = Field(default=False, description="the samples of a prompt start from the same x_T")


@final
class Grpo(PpoMethod):
    """HO(1) at all noisy steps, SKIP elsewhere."""

    name: ClassVar[str] = "grpo"
    Config: ClassVar[type[Strict]] = GrpoConfig

    def __init__(self, config: GrpoConfig, steps: int) -> None:
        """Raises BenchError if the window does not fit in the chain."""
        super().__init__(config, steps)
        self.perturbation = Perturbation(common_noise=config.common_noise)
        self.noisy = [i for i in range(steps) if i < config.until * steps - 1e-9]
        if config.window is not None and config.window > len(self.noisy):
            raise BenchError(
                f"grpo.window is {config.window}, but only {len(self.noisy)} of the chain's {steps} steps "
                "may be in it (grpo.until, model.steps)"
            )
        if config.window is not None and config.window_moves == "slides":
            places = len(self.noisy) - config.window + 1
            self.turns = range(0, places * config.slide_every, config.slide_every)
        rescaled = config.log_prob == "mean" or config.advantage_clamp is not None or config.biased_advantages
        whole = len(self.noisy) == steps and config.window in (None, steps)
        self.biased = rescaled or not whole or self.updates_per_batch > 1

    def plans(self, seed: int, batch: Batch) -> list[Plan]:
        """Noise in the window; of its steps those that are drawn are HO."""
        check_company(batch.prompts, self.config.baseline, self.config.divide)
        drawn: dict[str, list[int]] = {}
        for prompt in batch.prompts:
            if prompt not in drawn:
                drawn[prompt] = self._window(seed, batch, prompt)
        if self.config.step_fraction == 1:
            made = {prompt: self._plan(window, window) for prompt, window in drawn.items()}
            return [made[prompt] for prompt in batch.prompts]
        plans: list[Plan] = []
        for b, prompt in enumerate(batch.prompts):
            window = drawn[prompt]
            count = max(1, round(self.config.step_fraction * len(window)))
            pulled = uniform("plan", seed, batch.step, b).sample(window, count)
            plans.append(self._plan(window, pulled))
        return plans

    def advantages(self, rewards: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """By the settings."""
        return advantages(rewards, prompts, self.config.baseline, self.config.divide)

    def _window(self, seed: int, batch: Batch, prompt: str) -> list[int]:
        """The steps that inject noise into a prompt's samples."""
        c: GrpoConfig = self.config
        size = len(self.noisy) if c.window is None else c.window
        places = len(self.noisy) - size + 1
        if c.window_moves == "slides":
            start = batch.step // c.slide_every % places
        else:
            start = uniform("window", seed, batch.step, batch.prompts.index(prompt)).randrange(places)
        return self.noisy[start : start + size]

    def _plan(self, window: Sequence[int], pulled: Sequence[int]) -> Plan:
        weight, chosen = len(window) / len(pulled), set(pulled)
        segments = tuple(
            Segment(Kind.HO, i, i + 1, weight) if i in chosen else Segment(Kind.SKIP, i, i + 1)
            for i in range(self.steps)
        )
        return Plan(segments, tuple(self.config.eta if i in window else 0.0 for i in range(self.steps)))
