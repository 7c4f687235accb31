"""What a batch gradient is summed from and reported as: its terms by kind, and whoever looks on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import Protocol

import torch
from torch import Tensor

from bench.engine.batch import Evaluations, Gradients, MicroBatch, Report, Term, Trajectory
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
    """One batch gradient: its terms, summed over micro-batches, and the `evaluations` that they took."""

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        kinds: Iterable[Kind],
        weights: Mapping[Kind, float],
        scale: float,
        world: World,
        watch: Watch | None = None,
        *,
        plain: bool = True,
        norms: bool = False,
    ) -> None:
        """Begins a gradient: the last one's `.grad` is let go.

        weights: the term weights, a factor for each kind. scale: one over the number of samples. plain: as
        for `Watch`. norms: measure those of single HO samples, which then have to come one at a time.
        """
        for p in parameters:
            p.grad = None
        if watch is not None:
            watch.weighted(weights, plain)
        terms = {kind.term for kind in kinds}
        self.by_kind = {kind: Accumulator(parameters) for kind in weights if kind in terms}
        self.evaluations = Evaluations()
        self._weights, self._scale = weights, scale
        self._parameters, self._world, self._watch, self._norms = parameters, world, watch, norms
        self._squares: dict[int, tuple[float, int]] = {}
        self._micro_batches = 0

    def add(self, micro: MicroBatch, kind: Kind, i: int, rows: list[int], gradients: Gradients) -> None:
        """Count what these rows' step i contributed, one gradient per parameter; only if the batch is not to
        be left, as a sweep comes here at each step."""
        self._world.check()
        term = kind.term
        self.by_kind[term].add(gradients)
        if self._watch is not None:
            share = self._weights[term] * self._scale
            self._watch.contributed(term, i, share * flattened(gradients, self._parameters))
        if kind is Kind.HO and self._norms:
            square = sum(float(g.double().square().sum()) for g in gradients if g is not None)
            total, count = self._squares.setdefault(i, (0.0, 0))
            self._squares[i] = (total + square / float(micro.weight[rows[0], i]) ** 2, count + 1)

    def add_zeroth(self, i: int, gradient: Tensor) -> None:
        """Count a ZO step's flat gradient [d]."""
        self.by_kind[Kind.ZO].add_flat(gradient)
        if self._watch is not None:
            self._watch.contributed(Kind.ZO, i, self._weights[Kind.ZO] * self._scale * gradient)

    def close_micro_batch(self) -> None:
        """Fold the current micro-batch into the totals."""
        self._micro_batches += 1
        for term in self.by_kind.values():
            term.close_micro_batch()

    def written(self, trajectory: Trajectory) -> Report:
        """Write minus the weighted sum of the terms, over all processes, into `.grad`, and report it.

        The rollout counts with its first gradient; for later ones the parameters are new, so that its steps
        are run because the method needs them.
        """
        gradient, terms = self._summed()
        for p, g in zip(self._parameters, gradient.split([p.numel() for p in self._parameters]), strict=True):
            p.grad = -g.reshape(p.shape).to(p.dtype)
        counts = torch.tensor(astuple(self.evaluations), dtype=torch.float64, device=gradient.device)
        forward, backward, again = (int(n) for n in self._world.sum(counts))
        if trajectory.used:
            forward, again = forward + again, 0
        else:
            forward, trajectory.used = forward + trajectory.forward, True
        kl = None if trajectory.kl is None else float(trajectory.kl.sum(1).mean())
        norms = self._half_order_norms(trajectory.micros[0].steps) if self._norms else {}
        return Report(trajectory.rewards, terms, forward, backward, again, norms, kl=kl)

    def _summed(self) -> tuple[Tensor, dict[str, Term]]:
        """The weighted sum of all terms, flat [d], and what is reported of each."""
        dim = sum(p.numel() for p in self._parameters)
        gradient = self._parameters[0].new_zeros(dim, dtype=torch.float32)
        count = self._world.sum(torch.tensor([float(self._micro_batches)], device=gradient.device))
        report: dict[str, Term] = {}
        for kind, term in self.by_kind.items():
            self._world.sum(term.total)
            self._world.sum(term.squares)
            factor = self._weights[kind] * self._scale
            gradient += factor * term.total
            report[kind.value.lower()] = term.term(factor, int(count))
        return gradient, report

    def _half_order_norms(self, steps: int) -> dict[int, float]:
        """By step, the root mean square norm of one sample's HO gradient."""
        table = torch.zeros(steps, 2, dtype=torch.float64, device=self._parameters[0].device)
        for i, found in self._squares.items():
            table[i] = torch.tensor(found, dtype=torch.float64)
        summed = self._world.sum(table).tolist()
        return {i: (square / rows) ** 0.5 for i, (square, rows) in enumerate(summed) if rows}


def flattened(gradients: Gradients, parameters: Sequence[torch.nn.Parameter]) -> Tensor:
    """One gradient per parameter (None: zero) as a flat vector [d]."""
    parts = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
    return torch.cat([part.reshape(-1) for part in parts])
