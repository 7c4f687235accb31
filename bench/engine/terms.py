"""What a batch gradient is summed from: its terms by kind, and whoever looks on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from bench.engine.batch import Gradients, MicroBatch, Term, Trajectory
from bench.engine.plan import Kind
from bench.engine.world import World


class Accumulator:
    """Sums one term's gradient over micro-batches; keeps what its norm and its variance need."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._shapes = [p.shape for p in parameters]
        self._like = parameters[0]
        self._total: Tensor | None = None  # vectors as long as the LoRA are made when they are needed
        self._current: Tensor | None = None
        self._views: list[Tensor] = []  # of the current one, by parameter
        self.squares = self._zeros(1, torch.float64)

    @property
    def total(self) -> Tensor:
        """The sum over closed micro-batches, flat [d]."""
        if self._total is None:
            self._total = self._zeros(self._dim)
        return self._total

    @property
    def current(self) -> Tensor:
        """The current micro-batch's gradient so far, flat [d]."""
        if self._current is None:
            self._current = self._zeros(self._dim)
            pieces = self._current.split([shape.numel() for shape in self._shapes])
            self._views = [piece.view(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]
        return self._current

    def add(self, gradients: Gradients) -> None:
        """Add one gradient per parameter (None: zero)."""
        _ = self.current  # makes the views
        some = [(view, g) for view, g in zip(self._views, gradients, strict=True) if g is not None]
        if some:
            torch._foreach_add_([view for view, _ in some], [g for _, g in some])

    def add_flat(self, gradient: Tensor) -> None:
        """Add a flat gradient [d]."""
        current = self.current
        current += gradient

    def close_micro_batch(self) -> None:
        """Fold the current micro-batch into the total."""
        if self._current is not None:
            self.squares += self._current.double().square().sum()
            self._total = self._current if self._total is None else self._total.add_(self._current)
            self._current, self._views = None, []

    @property
    def _dim(self) -> int:
        return sum(shape.numel() for shape in self._shapes)

    def _zeros(self, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return self._like.new_zeros(count, dtype=dtype)

    def term(self, weight: float, micro_batches: int) -> Term:
        """Norm of weight · total, and its variance estimated from its M micro-batches (M ≥ 2).

        With independent g_m that sum to G: Var(G) ≈ M / (M - 1) · (Σ|g_m|² - |G|² / M).
        """
        square, m = self.total.double().square().sum(), micro_batches
        variance = None
        if m > 1:
            spread = float(self.squares - square / m) * m / (m - 1)
            variance = weight**2 * max(0.0, spread)
        return Term(abs(weight) * float(square.sqrt()), variance)


class Watch(Protocol):
    """What looks on while a method works: the gradient profile."""

    def rolled_out(self, trajectory: Trajectory) -> None:
        """A rollout has ended."""
        ...

    def weighted(self, weights: Mapping[Kind, float], plain: bool) -> None:
        """A gradient begins, with these term weights. plain: not PPO's objective, which rescales."""
        ...

    def contributed(self, kind: Kind, i: int, gradient: Tensor) -> None:
        """Part of the batch gradient (ascent direction, flat [d], as it counts in the sum) came from step i.

        kind: of the term.
        Called once per micro-batch, kind and step; a z that is shared by several steps counts at the first.
        """
        ...


class Terms:
    """The terms of one batch gradient, summed over its micro-batches.

    weights: the term weights, a factor for each kind. scale: one over the number of samples. norms: measure
    those of single HO samples, which then have to come one at a time.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        kinds: Iterable[Kind],
        weights: Mapping[Kind, float],
        scale: float,
        watch: Watch | None,
        norms: bool,
    ) -> None:
        terms = {kind.term for kind in kinds}
        self.by_kind = {kind: Accumulator(parameters) for kind in weights if kind in terms}
        self.weights, self.scale = weights, scale
        self._parameters, self._watch, self._norms = parameters, watch, norms
        self._squares: dict[int, tuple[float, int]] = {}
        self._micro_batches = 0

    def add(self, micro: MicroBatch, kind: Kind, i: int, rows: list[int], gradients: Gradients) -> None:
        """Count what these rows' step i contributed, one gradient per parameter."""
        term = kind.term
        self.by_kind[term].add(gradients)
        if self._watch is not None:
            share = self.weights[term] * self.scale
            self._watch.contributed(term, i, share * flattened(gradients, self._parameters))
        if kind is Kind.HO and self._norms:
            square = sum(float(g.double().square().sum()) for g in gradients if g is not None)
            total, count = self._squares.setdefault(i, (0.0, 0))
            self._squares[i] = (total + square / float(micro.weight[rows[0], i]) ** 2, count + 1)

    def add_zeroth(self, i: int, gradient: Tensor) -> None:
        """Count a ZO step's flat gradient [d]."""
        self.by_kind[Kind.ZO].add_flat(gradient)
        if self._watch is not None:
            self._watch.contributed(Kind.ZO, i, self.weights[Kind.ZO] * self.scale * gradient)

    def close_micro_batch(self) -> None:
        """Fold the current micro-batch into the totals."""
        self._micro_batches += 1
        for term in self.by_kind.values():
            term.close_micro_batch()

    def summed(self, world: World) -> tuple[Tensor, dict[str, Term]]:
        """The weighted sum of all terms, flat [d], and what is reported of each, over all processes."""
        dim = sum(p.numel() for p in self._parameters)
        gradient = self._parameters[0].new_zeros(dim, dtype=torch.float32)
        count = world.sum(torch.tensor([float(self._micro_batches)], device=gradient.device))
        report: dict[str, Term] = {}
        for kind, term in self.by_kind.items():
            world.sum(term.total)
            world.sum(term.squares)
            factor = self.weights[kind] * self.scale
            gradient += factor * term.total
            report[kind.value.lower()] = term.term(factor, int(count))
        return gradient, report

    def half_order_norms(self, steps: int, world: World) -> dict[int, float]:
        """By step, the root mean square norm of one sample's HO gradient, over all processes."""
        if not self._norms:
            return {}
        table = torch.zeros(steps, 2, dtype=torch.float64, device=self._parameters[0].device)
        for i, found in self._squares.items():
            table[i] = torch.tensor(found, dtype=torch.float64)
        summed = world.sum(table).tolist()
        return {i: (square / rows) ** 0.5 for i, (square, rows) in enumerate(summed) if rows}


def flattened(gradients: Gradients, parameters: Sequence[torch.nn.Parameter]) -> Tensor:
    """One gradient per parameter (None: zero) as a flat vector [d]."""
    parts = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
    return torch.cat([part.reshape(-1) for part in parts])
