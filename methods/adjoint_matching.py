"""Adjoint matching: the optimum of E[R] - KL/λ by regression on adjoints (Domingo-Enrich et al. 2024).

Source: arXiv:2409.08861, algorithms 1 and 2. The chain runs with memoryless noise, for which x_0 does not
depend on x_T: eta = 1 of DDIM (DDPM's noise), eta = √2 of flow_sde (its coefficient eta √(σ/(1 - σ)) is then
the paper's √(2 β (α' β/α - β')) with α = 1 - σ, β = σ). dR/dx_0 is pulled back step by step through the model
that training starts from, without its adapter (REF): the lean adjoint. At the trained steps (AM) the shift
(μ - μ⁰)/std is regressed on λ std times the adjoint, x_i held fixed. docs/estimators.md derives what that is
the gradient of: that of λ E[R] - KL at the start of training, another one later, and zero where λ E[R] - KL
is greatest. KL is the chain's from the one that training starts from.

`last` and `drawn` are the paper's choice of steps: those at the image end always, so many of the others drawn
anew for every batch, not reweighted. With last=1 there is none to draw.

Differs from the authors' code: the loss is divided by 2 λ, so that the gradient is that of E[R] - KL/λ, as
long as other methods'; LoRA in the place of all weights; the model's guidance everywhere, which their code
leaves out of both; a step is regressed on the adjoint at its clean end, theirs on that at its noisy one; the
last step has noise, too; no clipping unless asked for (`clip`), their quantile over the batch (0.9, a running
mean) is not there; no buffer of trajectories.
"""

import math
import random
from typing import ClassVar, final

from pydantic import Field

from bench.base.strict import Strict
from bench.engine.adjoint_matching import Matching
from bench.engine.plan import Kind, Plan, tiled
from bench.engine.plan_method import Estimator, PlanMethod


class AdjointMatchingConfig(Strict):
    """Settings of adjoint matching."""

    reward_scale: float = Field(default=100.0, gt=0, description="λ; the KL divergence counts 1/λ")
    last: float = Field(
        default=0.25, gt=0, le=1, description="steps at the image end that are always trained, a share of T"
    )
    drawn: float = Field(
        default=0.25, ge=0, le=1, description="steps before them that are drawn for a batch, a share of T"
    )
    clip: float | None = Field(
        default=None,
        gt=0,
        description="a sample's step is left out where |std a - u/λ|² is more than that, with a the adjoint "
        "and u the shift; the paper's 1.6 is 1.6/T of it with flow_sde (null: none is)",
    )
    eta: float = Field(
        default=1.0,
        gt=0,
        description="noise scale at every step; memoryless: 1 for ddim, 1.4142 for flow_sde",
    )


@final
class AdjointMatching(PlanMethod):
    """SKIP up to the first trained step, then AM, and REF between."""

    name: ClassVar[str] = "adjoint_matching"
    Config: ClassVar[type[Strict]] = AdjointMatchingConfig
    memoryless: ClassVar[bool] = True
    biased = True
    needs_reward_grad = True

    def plan(self, rng: random.Random) -> Plan:
        """Draw the steps that are trained."""
        c, steps = self.config, self.steps
        always = math.ceil(c.last * steps)
        before = rng.sample(range(steps - always), min(round(c.drawn * steps), steps - always))
        trained = {*before, *range(steps - always, steps)}
        first = min(trained)
        kinds = [Kind.AM if i in trained else Kind.REF for i in range(first, steps)]
        return tiled([Kind.SKIP] * first + kinds, (c.eta,) * steps)

    def estimator(self) -> Estimator:
        """One draw for the whole batch, as the authors draw it."""
        return Estimator(one_plan=True, matching=Matching(self.config.reward_scale, self.config.clip))
