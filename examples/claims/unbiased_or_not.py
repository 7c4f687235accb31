"""A biased estimator of low variance wins with few samples, an unbiased one with many (§6).

The mean of n batches errs by bias² + V/n. Truncated BP through the last K of T = 4 steps falls behind an
unbiased estimator at n* = (V_unbiased - V_truncated) / bias², here for batches of 2. Unbiased are REINFORCE
(likelihood ratio at every step) and truncation at a random K, each step weighted by 1 / P(it is covered). In
training (step size 0.1 / (1 + k / 10), weight decay) the exact gap J* - J shows the same; the table has its
decimal logarithm.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from bench.engine.plan import Kind, Plan, Segment, tiled
from examples import measure
from examples.linear_gaussian import LinearGaussianChain, QuadraticReward, exact_contributions
from examples.measure import Inline, Number, Outcome, Update
from examples.training import Objective, draw, save, train
from methods.truncated_bp import TruncatedBp, TruncatedBpConfig

SAMPLES = 640
SIZE, STEPS, SEEDS = 2, 4, 6
APART = 3  # errors are compared at n* / APART and n* · APART
ESTIMATORS = ("truncated_1", "truncated_2", "random_K", "REINFORCE")


@dataclass(frozen=True)
class Row:
    """Truncated BP against the unbiased ones. few, many: squared errors of the mean of n* / 3 and 3 n*
    batches, (truncated, random K)."""

    K: int
    bias2: float
    V: Number
    n_star_REINFORCE: Number
    n_star_random_K: Number
    few: Sequence[Number]
    many: Sequence[Number]


@dataclass(frozen=True)
class Gap:
    """log10(J* - J) after this many steps, over seeds: noise makes the gap itself heavy-tailed."""

    iterations: int
    truncated_1: Number
    truncated_2: Number
    random_K: Number
    REINFORCE: Number


def random_truncation(rng: random.Random) -> Plan:
    """FO on the last K steps, K uniform on 1 … T; step i is covered with probability (i + 1) / T."""
    cut = STEPS - rng.randint(1, STEPS)
    dropped = [Segment(Kind.SKIP, 0, cut)] if cut else []
    covered = [Segment(Kind.FO, i, i + 1, STEPS / (i + 1)) for i in range(cut, STEPS)]
    return Plan((*dropped, *covered), (1.0,) * STEPS)


def updates() -> dict[str, Update]:
    """The estimators by name: truncated BP at every K < T, and the unbiased ones."""
    ratio = tiled([Kind.HO] * STEPS, [1.0] * STEPS)
    truncated = {
        f"truncated_{k}": TruncatedBp(TruncatedBpConfig(k=k, eta=1.0), STEPS) for k in range(1, STEPS)
    }
    unbiased = {
        "random_K": Inline(random_truncation, STEPS),
        "REINFORCE": Inline(lambda rng: ratio, STEPS),
    }
    return {name: measure.first_update(method) for name, method in (truncated | unbiased).items()}


def squared_error(estimates: Tensor, exact: Tensor, n: int) -> Number:
    """E|mean of n - exact|², from disjoint groups of n of the estimates [N, d]."""
    groups = estimates[: len(estimates) // n * n].unflatten(0, (-1, n)).mean(1)
    return measure.mean((groups - exact).square().sum(1))


def crossings(chain: LinearGaussianChain, reward: QuadraticReward, batches: int, seed: int) -> list[Row]:
    """Where truncated BP falls behind, predicted and met."""
    found = {
        name: measure.batch_gradients(chain, reward, update, batches=batches, size=SIZE, seed=seed)
        for name, update in updates().items()
    }
    terms = exact_contributions(chain, reward, [1.0] * STEPS)
    spread = {name: measure.variance(estimates) for name, estimates in found.items()}
    rows = []
    for k in range(1, STEPS):
        name, bias2 = f"truncated_{k}", float(terms[: STEPS - k].sum(0).square().sum())
        n = {u: (spread[u] - spread[name]) * (1 / bias2) for u in ("REINFORCE", "random_K")}
        met = n["random_K"].value
        few, many = max(round(met / APART), 1), max(round(met * APART), 1)
        errors = [
            tuple(squared_error(found[e], terms.sum(0), m) for e in (name, "random_K")) for m in (few, many)
        ]
        rows.append(Row(k, bias2, spread[name], n["REINFORCE"], n["random_K"], *errors))
    return rows


def gaps(objective: Objective, iterations: int, seed: int) -> list[Gap]:
    """Every estimator's way to the best θ, seeds averaged."""
    best, found = objective.value(objective.exact_path(STEPS)[-1]), {}
    for name in ESTIMATORS:
        runs = [
            train(objective, updates()[name], step_size, iterations=iterations, size=SIZE, seed=seed + n)
            for n in range(SEEDS)
        ]
        found[name] = torch.stack([best - objective.value(r.thetas) for r in runs]).log10()
    shown = [0, *(2**n for n in range(20) if 2**n < iterations), iterations]
    return [Gap(k, **{name: measure.mean(values[:, k]) for name, values in found.items()}) for k in shown]


def step_size(k: int) -> float:
    """Decreasing, so that noise does not keep the unbiased from the best θ."""
    return 0.1 / (1 + k / 10)


def run(samples: int, seed: int = 0) -> Outcome:
    """samples: batches per estimator; a quarter as many training steps."""
    chain, reward = LinearGaussianChain(STEPS, 2, seed=1), QuadraticReward([1.0, -1.0])
    rows = crossings(chain, reward, samples, seed)
    trained = gaps(Objective(chain, reward, decay=1.0), samples // 4, seed + 1)
    early, late = trained[3], trained[-1]
    checks = {
        "with few batches truncation errs less": all(r.few[0].value < r.few[1].value for r in rows),
        "with many batches the unbiased errs less": all(r.many[0].value > r.many[1].value for r in rows),
        f"after {early.iterations} steps truncated K = 2 is ahead of REINFORCE": ahead(
            early.truncated_2, early.REINFORCE
        ),
        f"after {late.iterations} steps it is behind": ahead(late.REINFORCE, late.truncated_2),
    }
    return Outcome([rows, trained], checks)


def ahead(a: Number, b: Number) -> bool:
    """a is smaller by more than 2 standard errors."""
    return (b - a).value > 2 * (b - a).error


def plot(outcome: Outcome, file: Path) -> None:
    """log10(J* - J) against log iterations; FILE.png and FILE.svg."""
    rows: Sequence[Gap] = outcome.tables[1][1:]
    k = [row.iterations for row in rows]
    figure, axes = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
    for n, (name, marker) in enumerate(zip(ESTIMATORS, "sDo^", strict=True)):
        colour = ("C3", "C1", "C0", "C2")[n]
        found, label = [getattr(row, name) for row in rows], name.replace("truncated_", "truncated BP, K = ")
        draw(axes, k, found, fmt=f"{marker}-", color=colour, label=label.replace("_", " "))
    axes.set(xscale="log", xlabel="iterations", ylabel=r"$\log_{10}(J^* - J)$")
    axes.set_xticks(k[:-1], [str(n) for n in k[:-1]])
    axes.minorticks_off()
    save(figure, file)
