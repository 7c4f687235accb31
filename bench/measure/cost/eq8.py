"""Eq. 8 of the RLR paper, and what its own surrogate (Eq. 7) says.

Eq. 7: minimise (Σ_t V_t)², the variances plus twice the products of standard deviations, over h HO steps and
one FO step of std V_h and T - 1 - h ZO steps of std V_z, subject to B_h h + B_z (T - 1 - h) ≤ B.
Eq. 8: h* = min{⌊(B - B_z (T - 1)) / (B_h - B_z)⌋, ⌊T V_z / (2 (V_z - V_h)) - 1⌋}.

Two faults: the second term is -b / (4a) of J.6's parabola and not its vertex -b / (2a), which lies at
h ≥ T - 1: the surrogate falls all the way. And B is what the block may take *beside* weights and the
first-order step, which the constraint leaves out.
"""

from __future__ import annotations

import math

PAPER_B_H, PAPER_B_Z = 8e9, 0.24e9  # bytes per step (§4.2)


def first_term(budget: float, b_h: float, b_z: float, steps: int) -> int:
    """What memory allows, by Eq. 8. Same units for all three."""
    return math.floor((budget - b_z * (steps - 1)) / (b_h - b_z))


def second_term(steps: int, v_h: float, v_z: float) -> float:
    """What variance asks for, by Eq. 8: whole, or infinity where the assumption V_h < V_z fails."""
    return math.inf if v_h >= v_z else float(math.floor(steps * v_z / (2 * (v_z - v_h)) - 1))


def surrogate(h: int, steps: int, v_h: float, v_z: float) -> float:
    """What Eq. 7 minimises, at one h."""
    return ((h + 1) * v_h + (steps - 1 - h) * v_z) ** 2


def minimiser(steps: int, v_h: float, v_z: float) -> int:
    """The h in 0 … T-1 at which Eq. 7's objective is least, memory apart."""
    return min(range(steps), key=lambda h: surrogate(h, steps, v_h, v_z))
