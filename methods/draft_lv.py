"""DRaFT-LV: the last step, and the last step again from the picture noised anew: less variance than DRaFT-1.

Source: Clark et al. 2023 (DRaFT, arXiv:2309.17400, algorithm 1). After the chain has made x_0, this is noised
to the level of the last step n times, the step is run again from there, and the reward's gradient goes back
through that step. The estimate is the mean of the gradient through the chain's own last step and the n
others. Biased: what all steps but the last contribute is dropped, and the noised pictures are not quite those
that the chain brings to its last step.

Differs from the authors: gradients are averaged, where their algorithm sums them; the last step is the
solver's, which with DDIM's usual final alpha leaves a trace of noise, where theirs is the prediction of x_0.
Their n is 2. A copy costs two forward evaluations of the network and a backward one, and a reward's gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, final

from pydantic import Field

from bench.base.strict import Strict
from bench.engine.batch import Batch, Report
from bench.engine.method import Method
from bench.engine.plan import Kind, Plan, Segment

if TYPE_CHECKING:
    from bench.engine.engine import Engine


class DraftLvConfig(Strict):
    """Settings of DRaFT-LV."""

    copies: int = Field(default=2, ge=1, description="n, how often x_0 is noised and the last step run again")


@final
class DraftLv(Method):
    """SKIP × (T - 1), FO at the last step, which is run n times again."""

    name: ClassVar[str] = "draft_lv"
    Config: ClassVar[type[Strict]] = DraftLvConfig
    biased = True
    needs_reward_grad = True

    def __init__(self, config: DraftLvConfig, steps: int) -> None:
        """Any chain will do."""
        super().__init__(config, steps)
        self.config: DraftLvConfig = config
        self.besides = (config.copies, config.copies, config.copies)

    def updates(self, engine: Engine, batch: Batch) -> Iterator[Report]:
        """One rollout, one gradient."""
        last = self.steps - 1
        own = Segment(Kind.FO, last, self.steps, 1 / (1 + self.config.copies))
        plan = Plan((Segment(Kind.SKIP, 0, last), own) if last else (own,), (0.0,) * self.steps)
        trajectory = engine.rollout([plan] * len(batch.prompts), batch)
        yield engine.last_step_again(trajectory, self.config.copies)
