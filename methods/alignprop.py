"""AlignProp: backpropagation with randomised truncation (Prabhudesai et al. 2023).

`chain` draws one K per chain, as the later versions and the RLR paper have it: their cut at step N(42, 5) of
50 is K = T - cut. `mask` is the first published code: at every step a coin, the same for the whole batch,
decides whether the network's output is detached (kept with probability i / T at step i), while the solver's
linear x-path stays live (PASS). Biased either way: a step's contribution is kept with a probability below 1
and not reweighted.

Differs from the authors' code: the reward is maximised as it is, not as |r - 10| · 0.01; steps are pulled
back one at a time instead of in one checkpointed graph.
"""

import random
from typing import ClassVar, Literal, final

from pydantic import Field

from bench.base.strict import Strict
from bench.engine.plan import Kind, Plan, tiled
from bench.engine.plan_method import Estimator, PlanMethod, last_steps


class AlignPropConfig(Strict):
    """Settings of AlignProp."""

    truncation: Literal["chain", "mask"] = Field(
        default="chain", description="chain: one K per chain; mask: a coin per step, shared by the batch"
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

    def plan(self, rng: random.Random) -> Plan:
        """One draw of the truncation; at least the last step is backpropagated."""
        steps, eta = self.steps, (self.config.eta,) * self.steps
        if self.config.truncation == "mask":
            kept = [rng.random() * steps < i for i in range(steps - 1)]
            return tiled([Kind.FO if keep else Kind.PASS for keep in [*kept, True]], eta)
        cut = round(rng.gauss(self.config.cut_mean, self.config.cut_std) * steps)
        return last_steps(Kind.SKIP, steps - min(max(cut, 0), steps - 1), eta)

    def estimator(self) -> Estimator:
        """The mask is one for the batch, K one per chain."""
        return Estimator(one_plan=self.config.truncation == "mask")
