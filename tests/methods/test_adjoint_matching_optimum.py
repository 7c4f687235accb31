"""Adjoint matching is at rest at the optimum of the regularised reward, and training ends there."""

from typing import Any

import pytest
import torch
from scipy.stats import f as f_law
from torch import Tensor

import bench.engine.rollout
from bench.engine.chain import State, Transition, per_row
from examples.linear_gaussian import LinearGaussianChain, NoCondition, QuadraticReward
from tests.methods.test_adjoint_matching import method
from tests.support import fast_streams
from tests.support.toys import batch_of, engine_of, flat, gradient


class Stepwise(LinearGaussianChain):
    """The linear chain with parameters for each step, so that any control that is linear in x can be had."""

    def __init__(self, steps: int) -> None:
        super().__init__(steps, 1, seed=1, noise=0.6)
        self.weight = torch.nn.Parameter(self.weight.detach().repeat(steps, 1))
        self.drift = torch.nn.Parameter(self.drift.detach().repeat(steps))
        self._untrained = [
            torch.nn.Parameter(p.detach().clone(), requires_grad=False) for p in self.parameters()
        ]

    def transition(
        self, state: State, i: int, cond: NoCondition, eta: Tensor, *cut: Any, **more: Any
    ) -> Transition:
        """x' = a_i x + b_i (W_i x + v_i) + eta s_i eps."""
        output = self.weight[i] * state.x + self.drift[i]
        return Transition(self.a[i] * state.x + self.b[i] * output, per_row(eta, state.x) * self.s[i])


def go_to_optimum(chain: Stepwise, goal: float, scale: float) -> None:
    """Set the parameters to where λ E[R] - KL is greatest, R = -(x_0 - goal)² / 2.

    The value of x_{i+1} is -p x²/2 + q x + a constant; with the reference's mean m, the best mean of x_{i+1}
    is the greatest -p y²/2 + q y - (y - m)²/2s², y = (m + s² q)/(1 + s² p), which is linear in x_i again.
    """
    p, q = scale, scale * goal
    with torch.no_grad():
        for i in reversed(range(chain.steps)):
            a, b, variance = float(chain.a[i]), float(chain.b[i]), float(chain.s[i]) ** 2
            slope, shift = a + b * float(chain.weight[i]), b * float(chain.drift[i])
            share = 1 / (1 + variance * p)
            chain.weight[i] = (slope * share - a) / b
            chain.drift[i] = (shift + variance * q) * share / b
            p, q = p * slope**2 * share, slope * (q - p * shift) * share


STEPS, GOAL, SCALE = 3, 1.5, 2.0


def gradients(chain: Stepwise, batches: int, samples: int) -> Tensor:
    """[batches, d]."""
    engine = engine_of(chain, QuadraticReward([GOAL]), micro_batch=samples)
    made, found = method(STEPS, reward_scale=SCALE), list[Tensor]()
    for step in range(batches):
        next(iter(made.updates(engine, batch_of(samples, step))))
        found.append(gradient(chain))
    return torch.stack(found).double()


@pytest.mark.slow
def test_it_is_at_rest_at_the_optimum_of_the_regularised_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.engine.rollout, "normal", fast_streams.normal)
    chain = Stepwise(STEPS)
    away = gradients(chain, 2, 1024).mean(0).norm()
    go_to_optimum(chain, GOAL, SCALE)
    found = gradients(chain, 40, 1024)
    mean, n, d = found.mean(0), len(found), found.shape[1]
    t2 = float(mean @ torch.linalg.solve(torch.cov(found.T) / n, mean))
    assert f_law.sf(t2 * (n - d) / (d * (n - 1)), d, n - d) > 0.0027
    assert float(mean.norm()) < 0.02 * float(away)
    with torch.no_grad():
        chain.drift.add_(0.1)  # the test sees a point that is not at rest
    assert float(gradients(chain, 2, 1024).mean(0).norm()) > 0.05 * float(away)


@pytest.mark.slow
def test_training_ends_at_the_optimum_of_the_regularised_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.engine.rollout, "normal", fast_streams.normal)
    chain, optimum = Stepwise(STEPS), Stepwise(STEPS)
    go_to_optimum(optimum, GOAL, SCALE)
    engine, made = (
        engine_of(chain, QuadraticReward([GOAL]), micro_batch=256),
        method(STEPS, reward_scale=SCALE),
    )
    far = float((flat(chain.parameters()) - flat(optimum.parameters())).norm())
    optimizer = torch.optim.Adam(chain.parameters(), lr=0.1)
    for step in range(400):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 - step / 400)
        next(iter(made.updates(engine, batch_of(256, step))))
        optimizer.step()
    near = float((flat(chain.parameters()) - flat(optimum.parameters())).norm())
    assert near < 0.03 * far
