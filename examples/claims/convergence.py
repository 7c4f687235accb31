"""Theorem 6.4: with an unbiased gradient the mean squared gradient norm falls as K^(-1/2), below the bound.

K steps of gradient ascent at the theorem's step size, gamma = 1 / (sqrt((K + 1) L sigma² / (2 Delta_0)) + L).
The gradient norms are exact (closed form); L is the largest curvature on the exact path to the optimum,
sigma² the variance of the estimate at the start. Likelihood ratio at every step but the last, which is FO;
against it, truncated BP (K = 1 step of T = 4) at the same step sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from bench.engine.plan import Kind, tiled
from examples import measure
from examples.linear_gaussian import LinearGaussianChain, QuadraticReward
from examples.measure import Inline, Number, Outcome, Update
from examples.training import Objective, Run, draw, save, train
from methods.truncated_bp import TruncatedBp, TruncatedBpConfig

SAMPLES = 400
SIZE, STEPS, SEEDS = 16, 4, 3


@dataclass(frozen=True)
class Row:
    """K iterations. unbiased, truncated: mean over iterations of |∇J|², over seeds with standard error."""

    K: int
    step_size: float
    unbiased: Number
    bound: float
    truncated: Number


@dataclass(frozen=True)
class Constants:
    """What the bound is made of, and what was met on the way."""

    L: float
    L_met: float
    sigma2: Number
    sigma2_met: float
    Delta_0: float
    fitted_exponent: Number
    truncated_limit: float


def estimators() -> tuple[Update, Update]:
    """(unbiased, truncated BP through the last step)."""
    plan = tiled([Kind.HO] * (STEPS - 1) + [Kind.FO], [1.0] * STEPS)
    truncated = TruncatedBp(TruncatedBpConfig(k=1, eta=1.0), STEPS)
    return measure.first_update(Inline(lambda rng: plan, STEPS)), measure.first_update(truncated)


def run(samples: int, seed: int = 0) -> Outcome:
    """samples: the largest K."""
    chain, reward = LinearGaussianChain(STEPS, 2, seed=1), QuadraticReward([1.0, -1.0])
    objective, (unbiased, truncated) = Objective(chain, reward, decay=1.0), estimators()
    path = objective.exact_path(STEPS)
    L, gap = objective.curvature(path), float(objective.value(path[-1]) - objective.value(path[0]))
    at_start = measure.batch_gradients(chain, reward, unbiased, batches=100, size=SIZE, seed=seed)
    sigma2 = measure.variance(at_start)
    rows, averages, runs = [], [], []
    for k in [k for k in (samples // 64, samples // 16, samples // 4, samples) if k]:
        root = sqrt((k + 1) * L * sigma2.value / (2 * gap))
        bound = sqrt(8 * L * gap * sigma2.value / (k + 1)) + 2 * L * gap / (k + 1)
        both = []
        for update in (unbiased, truncated):
            found = [ascend(objective, update, 1 / (root + L), k, seed + 1 + n) for n in range(SEEDS)]
            both.append(torch.tensor([mean_square(objective, r) for r in found]))
            if update is unbiased:
                runs.extend(found)
        averages.append(both[0])
        rows.append(Row(k, 1 / (root + L), measure.mean(both[0]), bound, measure.mean(both[1])))
    exponent = fitted([row.K for row in rows], torch.stack(averages))
    met = (objective.curvature(torch.cat([r.thetas for r in runs])), squared_error(objective, runs))
    limit = float(objective.gradient(objective.exact_path(1)[-1]).square().sum())
    constants = Constants(L, met[0], sigma2, met[1], gap, exponent, limit)
    behind = rows[-1].truncated - rows[-1].unbiased
    checks = {
        "L and sigma² are as large as those met": met[0] <= L * 1.001 and met[1] <= sigma2.value,
        "the bound holds at every K": all(row.unbiased.value < row.bound for row in rows),
        "the fitted rate is K^(-1/2) or faster": exponent.value < -0.5 + 3 * exponent.error,
        "truncated BP is behind at the largest K": behind.value > 3 * behind.error,
    }
    return Outcome([rows, [constants]], checks)


def ascend(objective: Objective, update: Update, step_size: float, iterations: int, seed: int) -> Run:
    """A run at a constant step size."""
    return train(objective, update, lambda k: step_size, iterations=iterations, size=SIZE, seed=seed)


def mean_square(objective: Objective, run: Run) -> float:
    """|∇J|² averaged over θ_0 … θ_K."""
    return float(objective.gradient(run.thetas).square().sum(1).mean())


def squared_error(objective: Objective, runs: list[Run]) -> float:
    """E|estimate - ∇J|², over all iterations of all runs."""
    errors = [r.estimates - objective.gradient(r.thetas[:-1]) for r in runs]
    return float(torch.cat(errors).square().sum(1).mean())


def fitted(iterations: list[int], averages: torch.Tensor) -> Number:
    """Slope of log averages [len(iterations), seeds] over log (K + 1): a fit per seed, then their mean."""
    x = np.log(np.array(iterations) + 1.0)
    return measure.mean(torch.tensor([np.polyfit(x, column.log().numpy(), 1)[0] for column in averages.T]))


def plot(outcome: Outcome, file: Path) -> None:
    """|∇J|² against K, both axes logarithmic; FILE.png and FILE.svg."""
    rows, (constants,) = outcome.tables
    k = [row.K for row in rows]
    figure, axes = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
    axes.plot(k, [row.bound for row in rows], color="0.5", label="bound of Theorem 6.4")
    label = f"unbiased (fitted exponent {constants.fitted_exponent})"
    draw(axes, k, [row.unbiased for row in rows], fmt="o-", color="C0", label=label)
    slope = rows[0].unbiased.value * np.sqrt((k[0] + 1) / (np.array(k) + 1))
    axes.plot(k, slope, ":", color="C0", label=r"slope $K^{-1/2}$")
    draw(axes, k, [row.truncated for row in rows], fmt="s-", color="C3", label="truncated BP, last step")
    axes.axhline(constants.truncated_limit, color="C3", linestyle="--", label="where truncated BP rests")
    axes.set(xscale="log", yscale="log", xlabel="iterations K", ylabel="|∇J|², mean over iterations")
    axes.set_xticks(k, [str(n) for n in k])
    axes.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    axes.minorticks_off()
    save(figure, file)
