"""The null row of a comparison: a direction that is drawn at random, through the same optimizer.

The gradient is standard normal in every parameter and has nothing to do with the reward: whatever a run of it
gains, it gains by chance. So a method's gain counts only against this row's (docs/protocol.md), as gains from
a reward count only against those from random rewards (Shao et al. 2025, arXiv:2506.10947). It differs from a
method in the gradient alone: a batch is rolled out and scored as by any, for the log and for the budget. That
takes what a method without a backward takes, so it gets the most steps that a budget can pay for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, final

from bench.base.strict import Strict
from bench.engine.batch import Batch, Report, Term
from bench.engine.method import Method
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.random_streams import normal

if TYPE_CHECKING:
    from bench.engine.engine import Engine


class RandomDirectionConfig(Strict):
    """There are no settings: an optimizer such as Adam does not see how long a gradient is."""


@final
class RandomDirection(Method):
    """No estimate of anything."""

    name: ClassVar[str] = "random-direction"
    look = ("silver", "X", "dotted")
    Config: ClassVar[type[Strict]] = RandomDirectionConfig
    estimates = False
    biased = True
    needs_reward_grad = False

    def updates(self, engine: Engine, batch: Batch) -> Iterator[Report]:
        """One rollout without graphs, one drawn gradient."""
        plan = Plan((Segment(Kind.SKIP, 0, self.steps),), (0.0,) * self.steps)
        trajectory = engine.rollout([plan] * len(batch.prompts), batch, keep_graphs=False)
        square = 0.0
        for k, p in enumerate(engine.chain.parameters()):
            key = ("random-direction", engine.seed, batch.step, k)
            p.grad = normal([key], p.shape, p.device)[0].to(p.dtype)
            square += float(p.grad.square().sum())
        yield Report(trajectory.rewards, {"random": Term(square**0.5, None)}, trajectory.forward, 0)
