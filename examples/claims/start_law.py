"""Any law of the block's start j that ignores the sample is unbiased, but each has a target of its own.

Noise is injected only at the end of the drawn block, so RLR's objective is a mixture, over j, of stochastic
chains, and it changes with the law (§4.2: uniform, or softmax of gradient norms). What is deployed is the
chain without noise (eta = 0) and without perturbation. h = 1, T = 4; eta = 1 and s = 0.5 for sharp numbers;
`own target` is the mixture at these settings, the last column at the paper's eta = 0.1 and s = 1e-3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bench.engine.batch import Batch
from bench.engine.engine import Engine
from examples import measure
from examples.claims.theorem6_3 import own_target
from examples.linear_gaussian import LinearGaussianChain, QuadraticReward, exact_gradient
from examples.measure import Inline, Number, Outcome
from methods.rlr import Rlr, RlrConfig

SAMPLES = 40_000
SIZE, STEPS = 256, 4
LAWS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "always the first": {"start_range": (0, 0)},
    "always the last": {"start_range": (STEPS - 2, STEPS - 2)},
    "softmax of norms": {"start": "norms"},
}


@dataclass(frozen=True)
class Row:
    """One law. bias_for_own_target, and off_deployed (exact): relative to the norms of the targets."""

    law: str
    p: tuple[float, ...]
    bias_for_own_target: Number
    z: float
    own_target: tuple[Number, ...]
    deployed: tuple[Number, ...]
    off_deployed: float
    off_at_papers_settings: float


def half_order_norms(chain: LinearGaussianChain, reward: QuadraticReward, seed: int) -> dict[int, float]:
    """The running means that a law of norms uses, from one earlier batch under the uniform law."""
    method = Rlr(RlrConfig(h=1, eta=1.0, scale=0.5, start="norms"), STEPS)
    measure.first_update(method)(Engine(chain, reward, seed=seed, micro_batch=SIZE), Batch(("",) * SIZE, 0))
    return method.state


def law(settings: dict[str, Any], norms: dict[int, float], **scales: float) -> Rlr:
    """RLR with this law, frozen."""
    method = Rlr(RlrConfig.model_validate({"h": 1} | scales | settings), STEPS)
    if method.config.start == "norms":
        method.state.update(norms)
    return method


def run(samples: int, seed: int = 0) -> Outcome:
    """samples: rollouts per law."""
    chain, reward = LinearGaussianChain(STEPS), QuadraticReward([1.0])
    deployed, norms = exact_gradient(chain, reward, [0.0] * STEPS), half_order_norms(chain, reward, seed)
    rows = []
    for name, settings in LAWS.items():
        method = law(settings, norms, eta=1.0, scale=0.5)
        frozen = Inline(method.plan, STEPS, replace(method.estimator(), half_order_norms=False))
        update, batches = measure.first_update(frozen), measure.batches_of(samples, SIZE)
        found = measure.batch_gradients(chain, reward, update, batches=batches, size=SIZE, seed=seed + 1)
        exact = own_target(chain, reward, method)
        bias = measure.bias(found, exact)
        paper = own_target(chain, reward, law(settings, norms, eta=0.1, scale=1e-3))
        off = [float((g - deployed).norm() / deployed.norm()) for g in (exact, paper)]
        targets = (measure.numbers(exact), measure.numbers(deployed))
        rows.append(Row(name, shown(method), bias.relative, bias.z, *targets, *off))
    spread = max(r.off_deployed for r in rows) - min(r.off_deployed for r in rows)
    checks = {
        "every law is unbiased for its own target": all(r.z < 3 for r in rows),
        "the target changes with the law": spread > 0.01,
        "some law's target is the deployed chain's": any(r.off_deployed < 0.01 for r in rows),
    }
    return Outcome([rows], checks)


def shown(method: Rlr) -> tuple[float, ...]:
    """p(j) for j = 0 … T-2."""
    p = dict(zip(method.starts, method.probabilities(), strict=True))
    return tuple(round(p[j], 3) if j in p else 0.0 for j in range(STEPS - 1))
