"""Eq. 8 is the minimiser of Eq. 7's surrogate under its memory constraint.

Eq. 7's sum of variances plus twice the products of standard deviations is the square of the sum of standard
deviations, S(h) = ((h + 1) V_h + (T - 1 - h) V_z)², a = (V_h - V_z)² and b = 2 T V_z (V_h - V_z) in J.6. Its
vertex is -b / (2a); Eq. 8's second term is -b / (4a). The first term is Eq. 7's memory constraint, in which
every ZO step occupies B_z at once: the bytes that autograd holds for a plan say whether it does.
"""

from __future__ import annotations

import csv
import random
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from math import floor
from pathlib import Path

import torch
from torch import Tensor

from bench.engine.batch import Batch
from bench.engine.chain import State
from bench.engine.engine import Engine
from bench.engine.plan import Kind, Plan, Segment
from examples import measure
from examples.linear_gaussian import LinearGaussianChain, QuadraticReward
from examples.measure import Inline, Outcome

SAMPLES = 1000
T, B_H, B_Z = 50, 8.0, 0.24  # steps; gigabytes per HO and per ZO step (§4.2)
TABLE_9 = Path(__file__).parents[2] / "results" / "paper" / "table09_chain_length.csv"
RECOMMENDED = {30.0: 2, 40.0: 2}  # budget in gigabytes → the paper's h (§4.2)


@dataclass(frozen=True)
class Minimiser:
    """Where the surrogate is least. brute: over h = 0 … T-1; vertex: -b / (2a) - 1; eq8: the second term."""

    T: int
    V_h: float
    V_z: float
    brute: int
    vertex: float
    eq8: float


@dataclass(frozen=True)
class Budget:
    """The largest h that fits into B gigabytes: by Eq. 8's first term, as §4.2 recommends, by Table 9's
    measurements, and by B_h h + B_z ≤ B, which is Eq. 7's constraint if ZO steps leave nothing behind."""

    B: float
    eq8_first_term: int
    recommended: int
    table_9: int
    one_ZO_step: int


@dataclass(frozen=True)
class Memory:
    """Largest number of bytes that autograd holds at once; two samples, D = 8."""

    T: int
    ZO_every_step: int
    HO_block_of_4: int
    FO_step_by_step: int
    FO_in_one_graph: int


def surrogate(h: int, steps: int, v_h: float, v_z: float) -> float:
    """Eq. 7's objective, term by term: h HO steps and one FO step have std v_h, the ZO steps v_z."""
    stds = [v_h] * (h + 1) + [v_z] * (steps - 1 - h)
    pairs = sum(stds) ** 2 - sum(v * v for v in stds)
    return sum(v * v for v in stds) + pairs


def minimiser(steps: int, v_h: float, v_z: float) -> Minimiser:
    """The three answers for one setting."""
    brute = min(range(steps), key=lambda h: surrogate(h, steps, v_h, v_z))
    a, b = (v_h - v_z) ** 2, 2 * steps * v_z * (v_h - v_z)
    return Minimiser(steps, v_h, v_z, brute, -b / (2 * a) - 1, steps * v_z / (2 * (v_z - v_h)) - 1)


def fitting(budget: float, recommended: int) -> Budget:
    """The largest h in `budget` gigabytes."""
    first = floor((budget - B_Z * (T - 1)) / (B_H - B_Z))
    with TABLE_9.open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "rlr"]
    measured = max(int(row["h"]) for row in rows if float(row["memory_gb"]) <= budget)
    return Budget(budget, first, recommended, measured, floor((budget - B_Z) / B_H))


def memory(steps: int) -> Memory:
    """Peaks of three plans of the engine, and of backpropagation through the chain in one graph."""
    chain, reward = LinearGaussianChain(steps, 8), QuadraticReward([1.0] * 8)
    quiet, last = (0.0,) * steps, (*(0.0,) * (steps - 1), 1.0)
    plans = [
        Plan((Segment(Kind.ZO, 0, steps),), quiet),
        Plan((Segment(Kind.ZO, 0, steps - 4), Segment(Kind.HO, steps - 4, steps)), last),
        Plan((Segment(Kind.FO, 0, steps),), quiet),
    ]
    engine = Engine(chain, reward, seed=0, micro_batch=2)

    def in_one_graph() -> None:
        state, cond, eta = chain.prior(torch.ones(2, 8)), chain.condition([]), torch.zeros(2)
        for i in range(steps):
            state = State(chain.transition(state, i, cond, eta).mean)
        reward.score(chain.decode(state.x), []).sum().backward()

    updates = [measure.first_update(Inline(lambda rng, p=plan: p, steps)) for plan in plans]
    zo, ho, fo = (held(lambda u=update: u(engine, Batch(("", ""), 0))) for update in updates)
    return Memory(steps, zo, ho, fo, held(in_one_graph))


class Kept:
    """A tensor on autograd's shelf."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def held(work: Callable[[], object]) -> int:
    """The largest number of bytes that autograd keeps for backward passes while `work` runs."""
    now = most = 0

    def freed(size: int) -> None:
        nonlocal now
        now -= size

    def pack(tensor: Tensor) -> Kept:
        nonlocal now, most
        kept, size = Kept(tensor), tensor.numel() * tensor.element_size()
        weakref.finalize(kept, freed, size)
        now += size
        most = max(most, now)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        work()
    return most


def run(samples: int, seed: int = 0) -> Outcome:
    """samples: random settings (T, V_h, V_z) in which the minimiser is sought."""
    rng = random.Random(seed)
    drawn = [(rng.randrange(3, 60), rng.uniform(0.01, 0.9), 1.0) for _ in range(samples)]
    found = [minimiser(*setting) for setting in drawn]
    shown = [minimiser(T, v_h, 1.0) for v_h in (0.01, 0.1, 0.5, 0.9)]
    budgets = [fitting(budget, paper) for budget, paper in RECOMMENDED.items()]
    peaks = [memory(steps) for steps in (10, 20, 40)]
    least_at_end = all(m.brute == m.T - 1 for m in found)
    checks = {
        f"the surrogate is least at h = T - 1 in all of {samples} random settings": least_at_end,
        "Eq. 8's second term is the vertex of J.6's a and b": all(
            abs(m.eq8 - m.vertex) < 1e-9 for m in found
        ),
        "Eq. 8's first term gives the recommended h": all(b.eq8_first_term == b.recommended for b in budgets),
        "ZO's memory grows with T": peaks[-1].ZO_every_step > peaks[0].ZO_every_step,
    }
    return Outcome([shown, budgets, peaks], checks)
