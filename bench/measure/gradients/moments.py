"""What many gradients leave behind, in memory that does not depend on how many there were.

Draws are dealt to GROUPS groups in turn. Sums of vectors are kept per group: inner products between
*different* groups estimate those of means without the upward bias that noise gives to a squared norm.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from bench.engine.plan import Kind

GROUPS = 32
TERMS = (Kind.FO, Kind.HO, Kind.ZO)


@dataclass
class Sum:
    """The sum of vectors [d], and the sum of their squared norms."""

    vector: Tensor
    square: float = 0.0

    def add(self, vector: Tensor) -> None:
        """Count one more vector."""
        self.vector += vector
        self.square += norm2(vector)


@dataclass
class Grouped:
    """Sums of whole gradients by group: [GROUPS, d], their number and squared norms, [GROUPS] each."""

    vectors: Tensor
    counts: Tensor
    squares: Tensor

    @classmethod
    def empty(cls, dim: int) -> Grouped:
        """Sums of nothing, for vectors [dim]."""
        zeros = torch.zeros(GROUPS, dtype=torch.float64)
        return cls(torch.zeros(GROUPS, dim), zeros, zeros.clone())

    def add(self, group: int, vector: Tensor) -> None:
        """Count one more vector."""
        self.vectors[group] += vector
        self.counts[group] += 1
        self.squares[group] += norm2(vector)

    @property
    def total(self) -> int:
        """How many were counted."""
        return int(self.counts.sum())

    def spread(self) -> float:
        """Estimated total variance tr Cov of one vector; inf for fewer than two."""
        n = self.total
        if n < 2:
            return float("inf")
        return (float(self.squares.sum()) - norm2(self.vectors.sum(0)) / n) / (n - 1)


@dataclass
class Draw:
    """One batch gradient and what is known about it. Vectors are flat [d], ascent directions, on the CPU.

    parts: by (kind, step). exact: the same trajectory's pathwise gradient by step, where it was computed.
    deterministic: no noise and no perturbation, so that the deployed sampler's gradient is the target.
    seconds: None for a draw that also warms up. occupancy: [3, T], the share of samples that treat step i as
    FO, HO, ZO, times the plan's weight.
    """

    gradient: Tensor
    parts: dict[tuple[Kind, int], Tensor]
    exact: dict[int, Tensor] | None
    deterministic: bool
    occupancy: Tensor
    plain: bool
    seconds: float | None
    forward: int
    backward: int
    reward: float


@dataclass
class Moments:
    """Sums over draws of gradients [dim] of a chain of `steps` steps.

    same: in its first draws the gradient was the exact one. products, exact_products: Σ of inner products of
    the draw's terms [3, 3], of its exact steps [T, T].
    """

    dim: int
    steps: int
    draws: int = 0
    estimate: Grouped = field(init=False)
    exact: Grouped = field(init=False)
    parts: dict[tuple[Kind, int], Sum] = field(default_factory=dict)
    exact_steps: dict[int, Sum] = field(default_factory=dict)
    terms: dict[Kind, Tensor] = field(default_factory=dict)
    products: Tensor = field(default_factory=lambda: torch.zeros(3, 3, dtype=torch.float64))
    occupancy: Tensor = field(init=False)
    exact_products: Tensor = field(init=False)
    seconds: float = 0.0
    timed: int = 0
    forward: int = 0
    backward: int = 0
    reward: float = 0.0
    deterministic: bool = True
    same: bool = True
    plain: bool = True
    peak_memory: int = 0
    idle_memory: int = 0

    def __post_init__(self) -> None:
        self.estimate, self.exact = Grouped.empty(self.dim), Grouped.empty(self.dim)
        self.occupancy = torch.zeros(3, self.steps)
        self.exact_products = torch.zeros(self.steps, self.steps, dtype=torch.float64)

    def add(self, draw: Draw) -> None:
        """Count one more draw."""
        group = self.draws % GROUPS
        self.estimate.add(group, draw.gradient)
        _add_parts(self.parts, draw.parts)
        self._add_terms(draw.parts)
        if draw.exact is not None:
            self._add_exact(group, draw.exact)
        self.occupancy += draw.occupancy
        if draw.seconds is not None:
            self.seconds, self.timed = self.seconds + draw.seconds, self.timed + 1
        self.forward += draw.forward
        self.backward += draw.backward
        self.reward += draw.reward
        self.deterministic = self.deterministic and draw.deterministic
        self.plain = self.plain and draw.plain
        self.draws += 1

    def _add_exact(self, group: int, steps: dict[int, Tensor]) -> None:
        order, vectors = list(steps), torch.stack(list(steps.values()))
        self.exact.add(group, vectors.sum(0))
        _add_parts(self.exact_steps, steps)
        place = torch.tensor(order)
        self.exact_products[place[:, None], place[None, :]] += vectors.double() @ vectors.double().T

    def _add_terms(self, parts: dict[tuple[Kind, int], Tensor]) -> None:
        found = {kind: [v for (k, _), v in parts.items() if k is kind] for kind in TERMS}
        whole = {kind: torch.stack(vectors).sum(0) for kind, vectors in found.items() if vectors}
        for kind, vector in whole.items():
            self.terms[kind] = self.terms[kind] + vector if kind in self.terms else vector.clone()
            for other, against in whole.items():
                product = float(vector.double() @ against.double())
                self.products[TERMS.index(kind), TERMS.index(other)] += product

    def payload(self) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint."""
        return {
            **{key: getattr(self, key) for key in _PLAIN},
            "estimate": _grouped(self.estimate),
            "exact": _grouped(self.exact),
            "parts": {f"{kind} {i}": _sum(s) for (kind, i), s in self.parts.items()},
            "exact_steps": {i: _sum(s) for i, s in self.exact_steps.items()},
            "terms": {str(kind): vector for kind, vector in self.terms.items()},
        }

    @classmethod
    def restored(cls, payload: dict[str, Any]) -> Moments:
        """The sums that `payload` described."""
        moments = cls(payload["dim"], payload["steps"])
        for key in _PLAIN:
            setattr(moments, key, payload[key])
        moments.estimate = Grouped(*payload["estimate"])
        moments.exact = Grouped(*payload["exact"])
        for name, values in payload["parts"].items():
            kind, i = name.split()
            moments.parts[Kind(kind), int(i)] = Sum(*values)
        moments.exact_steps = {i: Sum(*values) for i, values in payload["exact_steps"].items()}
        moments.terms = {Kind(kind): vector for kind, vector in payload["terms"].items()}
        return moments


_PLAIN = tuple(f.name for f in fields(Moments) if f.type in ("int", "float", "bool", "Tensor"))


def norm2(vector: Tensor) -> float:
    """|v|² in double precision."""
    return float(vector.double().square().sum())


def _add_parts(sums: dict[Any, Sum], parts: dict[Any, Tensor]) -> None:
    for key, vector in parts.items():
        if key not in sums:
            sums[key] = Sum(torch.zeros_like(vector))
        sums[key].add(vector)


def _sum(s: Sum) -> tuple[Tensor, float]:
    return s.vector, s.square


def _grouped(g: Grouped) -> tuple[Tensor, Tensor, Tensor]:
    return g.vectors, g.counts, g.squares


def gram(rows: Iterable[Tensor], columns: Iterable[Tensor]) -> Tensor:
    """Inner products in double precision."""
    return torch.stack([r.double() for r in rows]) @ torch.stack([c.double() for c in columns]).T
