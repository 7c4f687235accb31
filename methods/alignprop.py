"""AlignProp: backpropagation with randomised truncation (Prabhudesai et al. 2023).

`chain` draws one K per batch, as the authors' present code does (its commit b576ae7, built on TRL): a cut at
step N(42, 5) of 50, rounded down and drawn again until it lies in 1 … T - 1, and K = T - cut. `mask` is
their first published code: at every step a coin, the same for the whole batch, decides whether the network's
output is detached (kept with probability i / T at step i), while the solver's x-path stays live (PASS).
Biased either way: a step's contribution is kept with a probability below 1 and not reweighted.

Differs from the authors' code: the reward is maximised as it is, not as |r - 10| · 0.01; steps are pulled
back one at a time instead of in one checkpointed graph. Their present settings are eta 1, guidance 5, AdamW
with weight decay 1e-4 and gradient norm 1; the first ones eta 0, weight decay 0.1 and gradient norm 5.
"""

import random
from statistics import NormalDist
from typing import ClassVar, Literal, final

from pydantic import Field

from bench.base.errors import BenchError
from bench.base.strict import Strict
from bench.engine.plan import Kind, Plan, tiled
from bench.engine.plan_method import Estimator, PlanMethod, last_steps

RARE = 1e-3  # least probability of a cut that can be used


class AlignPropConfig(Strict):
    """Settings of AlignProp."""

    truncation: Literal["chain", "mask"] = Field(
        default="chain", description="chain: one K per batch; mask: a coin per step, shared by the batch"
    )
    cut_mean: float = Field(default=0.84, ge=0, le=1, description="chain: mean of the cut, as a share of T")
    cut_std: float = Field(
        default=0.1, ge=0, description="chain: standard deviation of the cut, as a share of T"
    )
    eta: float = Field(default=0.0, ge=0, description="noise scale at every step")


@final
class AlignProp(PlanMethod):
    """FO on a random part of the chain."""

    name: ClassVar[str] = "alignprop"
    look = ("blue", "^", "solid")
    Config: ClassVar[type[Strict]] = AlignPropConfig
    biased = True
    needs_reward_grad = True

    def __init__(self, config: AlignPropConfig, steps: int) -> None:
        """Raises BenchError if the cut hardly ever falls into the chain."""
        super().__init__(config, steps)
        cut = NormalDist(config.cut_mean * steps, max(config.cut_std * steps, 1e-9))
        if config.truncation == "chain" and steps > 1 and cut.cdf(steps - 1e-6) - cut.cdf(1) < RARE:
            raise BenchError(
                f"alignprop.cut_mean {config.cut_mean:g} and cut_std {config.cut_std:g} hardly ever cut a "
                f"chain of {steps} steps: the cut, a share of the steps, has to leave the first and the last"
            )

    def plan(self, rng: random.Random) -> Plan:
        """One draw of the truncation; at least the last step is backpropagated."""
        steps, eta = self.steps, (self.config.eta,) * self.steps
        if self.config.truncation == "mask":
            kept = [rng.random() * steps < i for i in range(steps - 1)]
            return tiled([Kind.FO if keep else Kind.PASS for keep in [*kept, True]], eta)
        cut = 0
        while steps > 1 and not 1 <= cut < steps:
            cut = int(rng.gauss(self.config.cut_mean, self.config.cut_std) * steps)
        return last_steps(Kind.SKIP, steps - cut, eta)

    def estimator(self) -> Estimator:
        """One draw for the whole batch, as the authors draw it."""
        return Estimator(one_plan=True)
