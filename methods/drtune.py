"""DRTune: backpropagation with the network's input detached, so that early steps are trained at bounded cost.

Source: Wu et al. 2024 (Deep Reward Tuning, arXiv:2405.00760, algorithm 1). At K steps, evenly spaced with a
random offset, the network's output keeps its gradient to the parameters and its input is detached (DI); at
the others its output is detached, too (PASS). So x_t carries dR/dx_0 along the solver's linear path alone: no
product of network Jacobians, which is what grows without bound over many steps. The chain stops early, at a
random step m, and the reward is that of the one-step prediction of x_0 there, as in ReFL (null: it runs to
its end). Whatever an x_t does to later steps through the network is left out, so it is biased.

Differs from the authors' algorithm: the K steps are spread over the steps that run, theirs over all T, of
which an early stop leaves some out; the reward is maximised as it is; steps are pulled back one at a time.
The defaults are ours.
"""

import math
import random
from dataclasses import replace
from typing import ClassVar, final

from pydantic import Field

from bench.base.errors import BenchError
from bench.base.strict import Strict
from bench.engine.plan import Kind, Plan, tiled
from bench.engine.plan_method import Estimator, PlanMethod


class DrTuneConfig(Strict):
    """Settings of DRTune."""

    k: int | None = Field(
        default=5, ge=1, description="K, steps that are trained, evenly spaced; null: every step"
    )
    first: float | None = Field(
        default=0.6,
        ge=0,
        lt=1,
        description="the earliest step of the one-step prediction, as a share of T, and never the first of "
        "several; null: no early stop",
    )
    eta: float = Field(default=0.0, ge=0, description="noise scale at every step but a prediction")


@final
class DrTune(PlanMethod):
    """SKIP up to the first trained step, then DI × K among PASS; the last step may be a prediction."""

    name: ClassVar[str] = "drtune"
    Config: ClassVar[type[Strict]] = DrTuneConfig
    biased = True
    needs_reward_grad = True

    def __init__(self, config: DrTuneConfig, steps: int) -> None:
        """Raises BenchError if K > T."""
        super().__init__(config, steps)
        if config.k is not None and config.k > steps:
            raise BenchError(f"drtune.k is {config.k}, but the chain has only {steps} steps (model.steps)")

    def plan(self, rng: random.Random) -> Plan:
        """Draw where the chain stops, then which steps are trained."""
        first, steps, readout = self.config.first, self.steps, None
        if first is not None:
            readout = rng.randrange(min(max(1, math.ceil(first * steps)), steps - 1), steps)
            steps = readout + 1
        trained = self._trained(rng, steps)
        kinds = [Kind.DI if i in trained else Kind.PASS for i in range(trained[0], steps)]
        eta = [self.config.eta] * (steps - 1) + [0.0 if first is not None else self.config.eta]
        return replace(tiled([Kind.SKIP] * trained[0] + kinds, eta), readout=readout)

    def estimator(self) -> Estimator:
        """One draw for the whole batch, as the authors draw it."""
        return Estimator(one_plan=True)

    def _trained(self, rng: random.Random, steps: int) -> range:
        """Evenly spaced steps, from an offset that leaves room for all of them."""
        count = min(self.config.k or steps, steps)
        each = steps // count
        offset = rng.randrange(steps - (count - 1) * each)
        return range(offset, offset + (count - 1) * each + 1, each)
