"""Profile an estimator of your own on a chain of your own: python -m examples.profile_your_own

The estimator backpropagates through the late half of the chain, and through the early half only for every
second sample. Counting the early half twice where it is there makes up for it; counting it once does not.
"""

import random

from bench.engine.plan import Kind, Plan, Segment
from bench.engine.plan_method import Estimator, PlanMethod
from bench.measure.gradients.probe import profile
from examples.linear_gaussian import LinearGaussianChain, QuadraticReward


class HalfTheTime(PlanMethod):
    """FO on the late half; on the early half with probability 1/2, times `config`."""

    def plan(self, rng: random.Random) -> Plan:
        """One sample's plan."""
        early = Kind.FO if rng.random() < 0.5 else Kind.SKIP
        half = self.steps // 2
        segments = Segment(early, 0, half, weight=self.config), Segment(Kind.FO, half, self.steps)
        return Plan(segments, eta=(0.0,) * self.steps)

    def estimator(self) -> Estimator:
        """No perturbation, no likelihood ratio: nothing to set."""
        return Estimator()


def main() -> None:
    """Print both verdicts."""
    chain, reward = LinearGaussianChain(steps=6, dim=2), QuadraticReward([3.0, -1.0])
    for weight in (1.0, 2.0):
        method = HalfTheTime(weight, chain.steps)
        found = profile(method, chain, reward, prompts=("a", "b", "c", "d"), draws=200, batch=64)
        bias = found.own.relative
        print(f"weight {weight:g}: {found.own.verdict}, {bias.value:.2f} ({bias.low:.2f} to {bias.high:.2f})")
        print(f"  variance {found.noise.relative:.2g} |g|², {found.seconds:.3f} s per gradient")


if __name__ == "__main__":
    main()
