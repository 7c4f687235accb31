"""DiffusionNFT: contrast a positive and a negative model around an older one, at noised final samples.

Source: Zheng et al. 2025 (arXiv:2509.16117) and its code for Stable Diffusion 3.5. Samples are made by θ_old,
a running mean of θ, with the deterministic chain; nothing is asked of their trajectories. Each is noised to
levels of the chain, and with f and o the predictions of x_0 by θ and θ_old the loss is

    A_max/β · [ r |β f + (1 - β) o - x_0|² / w⁺ + (1 - r) |(1 + β) o - β f - x_0|² / w⁻ ] + kl |v - v_ref|²

r = (1 + A / A_max) / 2 in 0 … 1 is the sample's optimality, from its advantage A in units of the batch's
standard deviation; w⁺, w⁻ are the mean absolute errors of the two predictions, without a gradient; squares
are means over dimensions; v_ref is the velocity without the adapter. At θ = θ_old the gradient of the first
part is that of A |f - x_0|² / w: samples better than their prompt's others are matched, worse ones unmatched.
That is no gradient of E[R], as a matching loss takes the place of -log p(x_0); so the estimator counts as
biased, and only its direction can be compared (docs/estimators.md).

Differs from the authors' code: the baseline is the mean reward of the prompt's other samples, theirs has the
sample itself (`mean_prompt`), which shrinks A by 1 - 1/n; all samples of a batch share its levels, theirs are
shuffled for each sample; samples are made by the model's own solver, where they take second-order steps; one
optimizer step per batch; no running mean of the weights for evaluation. They train and sample without
guidance (--set model.guidance=1); with guidance, it is the guided prediction that is matched.
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
from bench.engine.chain import per_row, reference
from bench.engine.final_samples import OLDER, RunningMean, final_samples, holding, levels
from bench.engine.method import Method
from bench.engine.regression import Context, Prediction, Regression, per_sample

if TYPE_CHECKING:
    from bench.engine.engine import Engine

SMALLEST = 1e-5  # mean absolute error that a loss is divided by


class NftConfig(ImitationConfig):
    """Settings of DiffusionNFT."""

    beta: float = Field(
        default=1.0, gt=0, description="β: how far the positive and the negative model are from the older one"
    )
    levels: int | None = Field(
        default=None, ge=1, description="noise levels of the chain that a batch is noised to; null: all"
    )
    until: float = Field(default=1.0, gt=0, le=1, description="levels are those of the chain's first part")
    adaptive: bool = Field(
        default=True, description="divide squared errors by the sample's mean absolute error"
    )
    kl: float = Field(
        default=1e-4, ge=0, description="weight of the squared difference to the base model's velocity"
    )
    decay: float = Field(default=0.5, ge=0, le=1, description="of the older model, at the most")
    ramp: float = Field(
        default=0.001, ge=0, description="its decay after the n-th batch is n times that: 0 at first"
    )


@final
class Nft(Method):
    """A regression at noised final samples, towards those that are better than their prompt's others."""

    name: ClassVar[str] = "nft"
    Config: ClassVar[type[Strict]] = NftConfig
    biased = True
    needs_reward_grad = False

    def __init__(self, config: NftConfig, steps: int) -> None:
        """Any chain will do."""
        super().__init__(config, steps)
        self.config: NftConfig = config
        self.until = max(1, round(config.until * steps))
        self.count = config.levels or self.until
        self.older = RunningMean(config.decay, config.ramp)
        self.besides = (self.count * (3 if config.kl else 2), self.count, 0)

    def updates(self, engine: Engine, batch: Batch) -> Iterator[Report]:
        """One rollout by the older model, one gradient of the loss; then the older model follows."""
        check_company(batch.prompts, self.config.baseline, self.config.divide)
        trajectory = final_samples(engine, batch, self.steps, self.state.get(OLDER))
        parameters = engine.chain.parameters()
        older = self.older.of(self.state, parameters)
        beside: dict[str, Context] = {"older": partial(holding, parameters, older)}
        if self.config.kl:
            beside["reference"] = partial(reference, engine.chain)
        optimality = self.config.shares(trajectory.signed, batch.prompts) / 2 + 0.5
        steps = levels(self.count, self.until, engine.seed, batch)
        yield engine.regression(trajectory, Regression(steps, partial(self.loss, optimality), beside))
        self.older.follow(self.state, parameters, batch)

    def loss(self, optimality: torch.Tensor, p: Prediction) -> torch.Tensor:
        """Of some samples, [n]. optimality: r, [B]."""
        c, older, r = self.config, p.beside["older"], optimality[p.samples].to(p.x0.device)
        positive = self._error(c.beta * p.predicted + (1 - c.beta) * older, p.x0)
        negative = self._error((1 + c.beta) * older - c.beta * p.predicted, p.x0)
        loss = c.advantage_max / c.beta * (r * positive + (1 - r) * negative)
        return loss + c.kl * p.velocity_error(p.beside["reference"]) if c.kl else loss

    def _error(self, predicted: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        squares = (predicted - x0).square()
        if self.config.adaptive:
            squares = squares / per_row(
                per_sample((predicted - x0).detach().abs()).clamp(min=SMALLEST), squares
            )
        return per_sample(squares)
