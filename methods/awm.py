"""Advantage Weighted Matching: the matching loss of pre-training at final samples, weighted by the advantage.

Source: Xue et al. 2025 (arXiv:2509.25050) and its code for Stable Diffusion 3.5. Samples x_0 of the
deterministic chain are noised to levels of it, and with l = |v̂ - v|², the mean squared error of the predicted
velocity (that of x_0 and the noise is v), the loss is

    A · σ^a ((l + δ)^p - δ^p) / p  +  kl |v̂ - v_ref|²  +  kl_older |v̂ - v_older|²

with the advantage A, in standard deviations of the batch, cut off and divided by A_max; σ the level's noise;
p = 1/4 and a = 1 the code's `ghuber`, p = 1 and a = 0 its `Uniform`; squares are means over dimensions;
`older` is a running mean of the parameters, `ref` the model without the adapter.

Which form: the paper derives a policy gradient, in which -w l stands for log p(x_0), and the code has PPO's
surrogate -A · exp(w l_old - w l) clipped to 1 ± 1. Its configurations take one optimizer step per batch; the
ratio is 1 then, nothing is clipped, and the gradient is that of the plain weighted loss, as here. As -w l is
no log-likelihood of what the sampler makes, the gradient is not that of E[R] and counts as biased.

Differs from the authors' code: the baseline is the mean reward of the prompt's other samples, theirs has the
sample itself (`mean_prompt`); levels are drawn from equal parts of the chain, without their rounding, and
begin at pure noise, which their settings for GenEval and OCR leave out; samples are made by the model's own
solver, theirs by SA-Solver; no running mean of the weights for evaluation, which theirs use. They train
without guidance (--set model.guidance=1).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, ClassVar, final

from pydantic import Field

from bench.base.lazy import torch
from bench.base.strict import Strict
from bench.engine.advantages import ImitationConfig, check_company
from bench.engine.batch import Batch, Report
from bench.engine.chain import reference
from bench.engine.final_samples import RunningMean, final_samples, holding, levels
from bench.engine.method import Method
from bench.engine.regression import Context, Prediction, Regression

if TYPE_CHECKING:
    from bench.engine.engine import Engine

SMALLEST = 1e-10  # δ, added to a squared error


class AwmConfig(ImitationConfig):
    """Settings of Advantage Weighted Matching."""

    levels: int | None = Field(
        default=6, ge=1, description="noise levels of the chain that a batch is noised to; null: all"
    )
    until: float = Field(default=0.9, gt=0, le=1, description="levels are those of the chain's first part")
    power: float = Field(default=0.25, gt=0, description="p, of the squared error; 1: as in pre-training")
    noise_power: float = Field(
        default=1.0, ge=0, description="a, of the noise level that a loss is multiplied by; 0: all alike"
    )
    kl: float = Field(
        default=0.003, ge=0, description="weight of the squared difference to the base model's velocity"
    )
    kl_older: float = Field(
        default=1.0, ge=0, description="weight of the squared difference to the older model's velocity"
    )
    decay: float = Field(default=0.3, ge=0, le=1, description="of the older model, at the most")
    ramp: float = Field(
        default=0.001, ge=0, description="its decay after the n-th batch is n times that: 0 at first"
    )


@final
class Awm(Method):
    """A regression at noised final samples, weighted by how good they are beside their prompt's others."""

    name: ClassVar[str] = "awm"
    Config: ClassVar[type[Strict]] = AwmConfig
    biased = True
    needs_reward_grad = False

    def __init__(self, config: AwmConfig, steps: int) -> None:
        """Any chain will do."""
        super().__init__(config, steps)
        self.config: AwmConfig = config
        self.until = max(1, round(config.until * steps))
        self.count = config.levels or self.until
        self.older = RunningMean(config.decay, config.ramp)
        models = 1 + bool(config.kl) + bool(config.kl_older)
        self.besides = (self.count * models, self.count, 0)

    def updates(self, engine: Engine, batch: Batch) -> Iterator[Report]:
        """One rollout, one gradient of the loss; then the older model follows."""
        check_company(batch.prompts, self.config.baseline, self.config.divide)
        trajectory, parameters = final_samples(engine, batch, self.steps), engine.chain.parameters()
        beside: dict[str, Context] = {}
        if self.config.kl:
            beside["reference"] = partial(reference, engine.chain)
        if self.config.kl_older:
            beside["older"] = partial(holding, parameters, self.older.of(self.state, parameters))
        advantage = self.config.shares(trajectory.signed, batch.prompts)
        steps = levels(self.count, self.until, engine.seed, batch)
        yield engine.regression(trajectory, Regression(steps, partial(self.loss, advantage), beside))
        if self.config.kl_older:
            self.older.follow(self.state, parameters, batch)

    def loss(self, advantage: torch.Tensor, p: Prediction) -> torch.Tensor:
        """Of some samples, [n]. advantage: A, [B]."""
        c, error = self.config, p.velocity_error(p.x0)
        robust = ((error + SMALLEST) ** c.power - SMALLEST**c.power) / c.power
        loss = advantage[p.samples].to(error.device) * p.level.noise**c.noise_power * robust
        if c.kl:
            loss = loss + c.kl * p.velocity_error(p.beside["reference"])
        return loss + c.kl_older * p.velocity_error(p.beside["older"]) if c.kl_older else loss
