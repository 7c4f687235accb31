"""Eq. 6 read literally counts the last step twice and is biased; with that step excluded it is not.

C = {1..T} \\ {j..j+h} with j from 1: the paper's step 1, the last, is always in C or in the block, and FO
counts it once more. The surplus is the last step's own term of the gradient. Linear-Gaussian chain, T = 4,
blocks of one step; noise (eta = 1) and perturbation (s = 0.5) large, for sharp numbers. Gradients are
(d/dw, d/dv).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.engine.advantages import advantages
from bench.engine.batch import Batch, Perturbation
from bench.engine.engine import Engine
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.random_streams import uniform
from examples import measure
from examples.linear_gaussian import LinearGaussianChain, QuadraticReward, exact_contributions
from examples.measure import Number, Outcome, Update

SAMPLES = 60_000
SIZE, STEPS, SCALE = 256, 4, 0.5


@dataclass(frozen=True)
class Row:
    """One reading of Eq. 6. surplus: mean - exact, to compare with the last step's term."""

    reading: str
    mean: Sequence[Number]
    exact: Sequence[Number]
    surplus: Sequence[Number]
    last_steps_term: Sequence[Number]
    relative_bias: Number
    z: float


def plans(last: int) -> list[Plan]:
    """Blocks of one step that start at 0 … last, ZO at every other step of 0 … `last`; FO on what remains."""
    found = []
    for j in range(last + 1):
        edges = ((Kind.ZO, 0, j), (Kind.HO, j, j + 1), (Kind.ZO, j + 1, last + 1), (Kind.FO, last + 1, STEPS))
        segments = tuple(Segment(kind, start, stop) for kind, start, stop in edges if stop > start)
        found.append(Plan(segments, tuple(float(i == j) for i in range(STEPS))))
    return found


def estimate(choice: Sequence[Plan], first_order_again: bool) -> Update:
    """One of the plans for every sample; `first_order_again` adds an FO term on the last step."""

    def update(engine: Engine, batch: Batch) -> None:
        drawn = uniform("eq6", engine.seed, batch.step).choices(choice, k=len(batch.prompts))
        trajectory = engine.rollout(drawn, batch, Perturbation(scale=SCALE), reward_grad=True)
        engine.gradient(trajectory, advantages(trajectory.signed, batch.prompts, "loo"))
        if not first_order_again:
            return
        for micro in trajectory.micros:
            assert micro.reward_grad is not None
            rows = list(range(len(micro.index)))
            again = engine.pullback.step(micro, STEPS - 1, rows, micro.reward_grad).parameters
            for p, g in zip(engine.chain.parameters(), again, strict=True):
                assert p.grad is not None and g is not None
                p.grad -= g / len(batch.prompts)

    return update


def run(samples: int, seed: int = 0) -> Outcome:
    """samples: rollouts per reading."""
    chain, reward = LinearGaussianChain(STEPS), QuadraticReward([1.0])
    readings = {
        "literal: j, C from the last step": (plans(STEPS - 1), True),
        "last step excluded from j and C": (plans(STEPS - 2), False),
    }
    rows, biases, surpluses = [], [], []
    for reading, (choice, again) in readings.items():
        exact = torch.stack([measure.target(chain, reward, p, SCALE) for p in choice]).mean(0)
        last = torch.stack([last_term(chain, reward, p) for p in choice]).mean(0)
        update, batches = estimate(choice, again), measure.batches_of(samples, SIZE)
        found = measure.batch_gradients(chain, reward, update, batches=batches, size=SIZE, seed=seed)
        bias = measure.bias(found, exact)
        biases.append(bias)
        surpluses.append(measure.bias(found - exact, last))
        means, surplus = measure.components(found), measure.components(found - exact)
        exacts = (measure.numbers(exact), measure.numbers(last))
        rows.append(Row(reading, means, exacts[0], surplus, exacts[1], bias.relative, bias.z))
    checks = {
        "the literal reading is biased": biases[0].found,
        "its surplus is the last step's term": not surpluses[0].found,
        "with the last step excluded it is unbiased": not biases[1].found,
    }
    return Outcome([rows], checks)


def last_term(chain: LinearGaussianChain, reward: QuadraticReward, plan: Plan) -> torch.Tensor:
    """The last step's term of the plan's exact gradient, [d]."""
    return exact_contributions(chain, reward, plan.eta, measure.scales(plan, SCALE))[-1]
