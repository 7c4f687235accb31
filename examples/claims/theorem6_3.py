"""Theorem 6.3: RLR is unbiased at every h, without HO too, but not without ZO (Table 5's rows).

Its own objective: the mean over block starts j of chains with noise at the block's end and perturbed ZO
steps, exact for the linear-Gaussian chain. T = 6, eta = 1, s = 0.5: large, for sharp numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from examples import measure
from examples.linear_gaussian import LinearGaussianChain, QuadraticReward
from examples.measure import Number, Outcome
from methods.rlr import Rlr, RlrConfig

SAMPLES = 24_000
SIZE, STEPS = 256, 6
SHARP: dict[str, Any] = {"eta": 1.0, "scale": 0.5}
UNBIASED: dict[str, dict[str, Any]] = {
    "RLR, h = 1": {"h": 1},
    "RLR, h = 2": {"h": 2},
    "RLR, h = 3": {"h": 3},
    "RLR, h = 4": {"h": 4},
    "w/o HO (h = 0)": {"h": 0},
}
BIASED: dict[str, dict[str, Any]] = {
    "w/o ZO, h = 2": {"h": 2, "completion": "none"},
    "w/o HO & ZO": {"h": 0, "completion": "none"},
}


@dataclass(frozen=True)
class Row:
    """One estimator against its own exact target. bias: relative to the target's norm."""

    estimator: str
    mean: tuple[Number, ...]
    exact: tuple[Number, ...]
    bias: Number
    z: float


def own_target(chain: LinearGaussianChain, reward: QuadraticReward, method: Rlr) -> Tensor:
    """The mean, over the law of j, of the exact gradients of the plans."""
    each = zip(method.probabilities(), targets(chain, reward, method), strict=True)
    return torch.stack([p * g for p, g in each]).sum(0)


def targets(chain: LinearGaussianChain, reward: QuadraticReward, method: Rlr) -> list[Tensor]:
    """The exact gradient of the plan of every block start."""
    found = []
    for j in method.starts:
        config = method.config.model_copy(update={"start_range": (j, j)})
        plan = Rlr(config, method.steps).plan(measure.NO_CHOICE)
        found.append(measure.target(chain, reward, plan, config.scale))
    return found


def run(samples: int, seed: int = 0) -> Outcome:
    """samples: rollouts per estimator."""
    chain, reward = LinearGaussianChain(STEPS), QuadraticReward([1.0])
    rows = []
    for name, settings in (UNBIASED | BIASED).items():
        method = Rlr(RlrConfig.model_validate(SHARP | settings), STEPS)
        exact, update = own_target(chain, reward, method), measure.first_update(method)
        batches = measure.batches_of(samples, SIZE)
        found = measure.batch_gradients(chain, reward, update, batches=batches, size=SIZE, seed=seed)
        bias = measure.bias(found, exact)
        rows.append(Row(name, measure.components(found), measure.numbers(exact), bias.relative, bias.z))
    z = {row.estimator: row.z for row in rows}
    checks = {
        "RLR is unbiased at every h": all(z[name] < 3 for name in UNBIASED),
        "without HO it stays unbiased": z["w/o HO (h = 0)"] < 3,
        "without ZO it is biased": z["w/o ZO, h = 2"] > 3,
        "without both it is biased": z["w/o HO & ZO"] > 3,
    }
    return Outcome([rows], checks)
