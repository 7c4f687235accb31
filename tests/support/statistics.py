"""Paired comparison of an estimator with the pathwise gradient of its own target on a closed-form chain.

Both see the same trajectories (noise, perturbations, drawn plans), so the mean of their difference is the
estimator's bias. A whole batch is one observation, because what a batch shares does not average within it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import f as f_law
from scipy.stats import norm
from torch import Tensor

from bench.engine.batch import Batch, Perturbation, Trajectory
from bench.engine.engine import Engine
from bench.engine.method import Method
from bench.engine.plan import Plan
from tests.support.toys import gradient

THREE_STANDARD_ERRORS = float(2 * norm.sf(3))  # 0.0027, the probability of a larger deviation by chance


class Recorder:
    """An engine that keeps the reward's gradient and the trajectory of its last rollout."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.chain, self.seed = engine, engine.chain, engine.seed
        self.gradient, self.regression = engine.gradient, engine.regression
        self.last_step_again = engine.last_step_again
        self.trajectory: Trajectory | None = None

    def rollout(
        self,
        plans: list[Plan],
        batch: Batch,
        perturbation: Perturbation | None = None,
        *,
        keep_graphs: bool = True,
    ) -> Trajectory:
        """The engine's, with dR/dx_0."""
        self.trajectory = self.engine.rollout(
            plans, batch, perturbation, reward_grad=True, keep_graphs=keep_graphs
        )
        return self.trajectory


@dataclass(frozen=True)
class Comparison:
    """What N batches say: mean difference, its covariance, the mean pathwise gradient, the mean estimate."""

    difference: Tensor
    covariance: Tensor  # of the mean difference
    batches: int
    target: Tensor
    estimate: Tensor

    @property
    def relative_error(self) -> float:
        """Standard error of the difference over the norm of the target."""
        return float(self.covariance.trace().sqrt() / self.target.norm())

    @property
    def bias(self) -> float:
        """|mean difference| over |target|."""
        return float(self.difference.norm() / self.target.norm())

    @property
    def p_value(self) -> float:
        """Hotelling's T² test that the difference is 0: one test for all coordinates together.

        "Within 3 standard errors" is p > 0.0027, what 3 standard errors are in one dimension.
        """
        d, n = len(self.difference), self.batches
        if self.relative_error < 1e-5:  # no noise: equal up to rounding, or not
            return 1.0 if self.bias < 1e-5 else 0.0
        t2 = float(self.difference @ torch.linalg.solve(self.covariance, self.difference))
        return float(f_law.sf(t2 * (n - d) / (d * (n - 1)), d, n - d))

    @property
    def agrees(self) -> bool:
        """The difference is within 3 standard errors of 0."""
        return self.p_value > THREE_STANDARD_ERRORS


Estimate = Callable[[Recorder, Batch], None]


def compare(engine: Engine, estimate: Estimate, *, batches: int, size: int, each: int = 4) -> Comparison:
    """Run `estimate` (leaves a gradient in `.grad`) on batches of `size` samples, `each` of every prompt."""
    recorder = Recorder(engine)
    found, pathwise = [], []
    for step in range(batches):
        prompts = tuple("abcde"[: 1 + b // each % 5] + str(b // each) for b in range(size))
        estimate(recorder, Batch(prompts, step))
        assert recorder.trajectory is not None
        found.append(gradient(engine.chain))
        pathwise.append(engine.pathwise(recorder.trajectory))
    g, target = torch.stack(found).double(), torch.stack(pathwise).double()
    difference = g - target
    return Comparison(
        difference.mean(0),
        torch.atleast_2d(torch.cov(difference.T)) / batches,
        batches,
        target.mean(0),
        g.mean(0),
    )


def first_update(method: Method) -> Estimate:
    """The method's first gradient of a batch."""

    def estimate(engine: Any, batch: Batch) -> None:
        next(iter(method.updates(engine, batch)))

    return estimate
