"""Stages 3 and 4 of a gradient: one step's graph, its Jacobian times a cotangent, and the graph is freed.

A row carries one cotangent from the image end to the noise end: dR/dx_0 while its steps are FO, DI or PASS,
dR/dx_0 by the reference model while they are AM or REF, and A ε/σ (`bench.engine.likelihood_ratio`) from an
HO block's last step to its first. The graph was kept from the rollout, or the step is run again for it
(`bench.engine.kept_graphs`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.engine.adjoint_matching import Matching
from bench.engine.batch import Cotangent, Evaluations, Gradients, MicroBatch
from bench.engine.chain import per_row, reference
from bench.engine.float16 import Product, network
from bench.engine.kept_graphs import Graphs
from bench.engine.kl import KlCotangent
from bench.engine.likelihood_ratio import LikelihoodRatio
from bench.engine.plan import REWARDED, Kind
from bench.engine.stages import FIRST_ORDER, HALF_ORDER, stage

# Takes the kind, the step, the rows that were summed over, and the gradients.
Add = Callable[[Kind, int, list[int], Gradients], None]


@dataclass(frozen=True)
class Vjp:
    """Vector–Jacobian products of one transition: with x and memory [rows, …], and with each parameter.

    x is zero where it was not asked for.
    """

    x: Tensor
    history: Tensor | None
    parameters: Gradients


@dataclass
class Carried:
    """Cotangents on their way through the chain, all rows of a micro-batch: of x and, for multistep solvers,
    memory.

    A first-order step's weight counts for its parameters, not for what goes on to earlier steps, so it
    multiplies what enters the step (`into`) and divides what leaves it (`put`).
    """

    x: Tensor
    history: Tensor | None = None

    def into(self, rows: slice | Tensor, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """What enters a step of these rows: cotangents of x and memory, times weight [rows]."""
        x, factor = self.x[rows], per_row(weight, self.x)
        return x * factor, None if self.history is None else self.history[rows] * factor

    def put(self, to: slice | Tensor, onward: slice | Tensor, weight: Tensor, found: Vjp) -> None:
        """Keep what leaves a step of some rows, over weight [rows]; onward: the places among them that go on,
        to: which rows these are."""
        self.x[to] = (found.x / per_row(weight, found.x))[onward]
        if found.history is not None:
            if self.history is None:
                self.history = torch.zeros_like(self.x)
            self.history[to] = (found.history / per_row(weight, found.history))[onward]


class Pullback:
    """Pulls cotangents back through the steps of a rolled-out micro-batch."""

    def __init__(self, graphs: Graphs, kl: float = 0.0) -> None:
        """kl: weight of the KL term; 0: there is none."""
        self.kl = kl
        self.graphs, self.roller, self.chain = graphs, graphs.roller, graphs.roller.chain

    def step(
        self,
        micro: MicroBatch,
        i: int,
        rows: list[int],
        cotangent: Tensor | Cotangent,
        history_cotangent: Tensor | None = None,
        *,
        kind: Kind = Kind.FO,
        need_input: bool = True,
        need_parameters: bool = True,
    ) -> Vjp:
        """Multiply the Jacobian of step i of these rows with the cotangent. The graph is freed on return.

        cotangent: of the step's mean, [rows, …], or a function of the recomputed (mean, std) that gives it.
        history_cotangent: of the memory that the step leaves. kind: DI and PASS leave a part of the Jacobian
        out. need_input, need_parameters: what to multiply with; there are no gradients of what is not asked
        for. Raises BenchError if float16 overflows.
        """
        graph = micro.graphs.pop((i, tuple(rows)), None)
        trainable = self.chain.parameters() if need_parameters and kind is not Kind.PASS else []
        inputs: list[Tensor] = []

        def product() -> Product:
            nonlocal graph, inputs
            kept, graph = graph, None
            kept = kept or self.graphs.build(micro, i, rows, kind, need_input=need_input)
            inputs, out = kept.inputs, kept.out
            seed = cotangent
            if not isinstance(seed, Tensor):
                seed = seed(out.mean.detach(), out.std.detach())
            if out.history is None or history_cotangent is None or not out.history.requires_grad:
                return [out.mean], [*inputs, *trainable], [seed]
            return [out.mean, out.history], [*inputs, *trainable], [seed, history_cotangent]

        through = network(self.chain, i)
        if kind is Kind.PASS:
            through = replace(through, float16=False)  # the network is not in the graph
        with self.roller.perturbed(micro, i, rows):  # checkpointing runs the network again in the backward
            grads = through.vjp(product)
        x = micro.states[i].x[micro.at(rows)]
        return Vjp(
            x=_or_zero(grads[0] if inputs else None, x),
            history=_or_zero(grads[1], x) if len(inputs) > 1 else None,
            parameters=list(grads[len(inputs) :]),
        )

    def sweep(
        self,
        micro: MicroBatch,
        rows: list[int],
        add: Add | None,
        evaluations: Evaluations,
        ratio: LikelihoodRatio | None = None,
        half_order_singly: bool = False,
        matching: Matching | None = None,
    ) -> Tensor:
        """One pass over the steps, last to first; returns the cotangent of x_T, where it goes on to there.

        rows: those to pull back. add: is handed each step's parameter gradients; None: they are not taken.
        evaluations: the pullback's are added to it. ratio: gives the cotangents of HO blocks, if there are
        any. half_order_singly: one HO row at a time. matching: gives those of AM steps.
        """
        wanted, last = set(rows), micro.states[-1].x
        here = Carried(torch.zeros_like(last) if micro.reward_grad is None else micro.reward_grad)
        for i in reversed(range(micro.steps)):
            before = Carried(torch.zeros_like(here.x))
            for kind, some in _groups(micro, i, wanted, half_order_singly):
                onward = [k for k, r in enumerate(some) if micro.onward[r][i]]
                if kind in (Kind.PASS, Kind.REF) and not onward:
                    continue  # no parameters to learn, no earlier step to hand x to
                these = micro.at(some)
                weight = micro.weight[these, i]
                weight = weight if kind in (Kind.FO, Kind.DI) else torch.ones_like(weight)
                x, memory = here.into(these, weight)
                cotangent = x
                if kind is Kind.HO and ratio is not None:
                    cotangent = _half_order_cotangent(ratio, micro, i, some, x)
                kl = self._kl(micro, i, some, kind, ratio)
                if kl is not None:
                    cotangent = kl.beside(cotangent)
                with stage(HALF_ORDER if kind is Kind.HO else FIRST_ORDER):
                    if kind in (Kind.AM, Kind.REF):
                        found = self._matched(micro, i, some, kind, x, evaluations, matching, bool(onward))
                    else:
                        self._count(micro, i, some, kind, evaluations)
                        found = self.step(
                            micro,
                            i,
                            some,
                            cotangent,
                            memory,
                            kind=kind,
                            need_input=bool(onward),
                            need_parameters=add is not None,
                        )
                if add is not None and kind not in (Kind.PASS, Kind.REF):
                    add(kind, i, some, found.parameters)
                if onward and kl is not None:
                    self._through_reference(kl, kind, onward, found, evaluations)
                if onward:
                    to = these if len(onward) == len(some) else micro.at([some[k] for k in onward])
                    before.put(to, micro.at(onward), weight, found)
                del found  # vectors as long as the parameters, before the next graph is built
            here = before
        return here.x

    def _kl(
        self, micro: MicroBatch, i: int, rows: list[int], kind: Kind, ratio: LikelihoodRatio | None
    ) -> KlCotangent | None:
        """What the KL term adds where the rows' step i injects noise. Along the x-path alone there is none:
        both chains have the same."""
        if not self.kl or i not in micro.reference or kind is Kind.PASS:
            return None
        if not any(micro.noisy[r][i] for r in rows):
            return None
        factor = self.kl * micro.weight[micro.at(rows), i]
        if kind is Kind.HO and ratio is not None and ratio.ppo is not None and ratio.ppo.mean:
            factor = factor / micro.states[i].x[0].numel()  # as the likelihood ratio
        return KlCotangent(micro, i, rows, factor)

    def _through_reference(
        self, kl: KlCotangent, kind: Kind, onward: list[int], found: Vjp, evaluations: Evaluations
    ) -> None:
        """Take the reference's part of the KL term off what is carried on. onward: places of its rows."""
        places = sorted(set(onward).intersection(kl.noisy))
        if not places:
            return
        assert kl.value is not None
        to = kl.micro.at(places)
        off = self._reference(kl.micro, kl.i, [kl.rows[k] for k in places], kl.value[to], kind)
        found.x[to] -= off.x
        if found.history is not None and off.history is not None:
            found.history[to] -= off.history
        count = len(places) * self.chain.evaluations_per_step
        evaluations.again += count
        evaluations.backward += count

    def _matched(
        self,
        micro: MicroBatch,
        i: int,
        rows: list[int],
        kind: Kind,
        adjoint: Tensor,
        evaluations: Evaluations,
        matching: Matching | None,
        onward: bool,
    ) -> Vjp:
        """An AM or REF step: x by the reference model, then parameters by the regression on the adjoint."""
        count = len(rows) * self.chain.evaluations_per_step
        evaluations.forward += count
        evaluations.backward += count if onward else 0
        mean, x = adjoint, torch.zeros_like(adjoint)

        def seen(found: Tensor, _: Tensor) -> Tensor:
            nonlocal mean
            mean = found
            return adjoint

        if onward:
            x = self._reference(micro, i, rows, seen, kind).x
        else:
            with reference(self.chain):
                mean = self.roller.step(micro, micro.states[i].select(micro.at(rows)), i, rows).mean
        if kind is Kind.REF:
            return Vjp(x, None, [])
        if matching is None:
            raise ValueError("AM steps need to be told what they match")
        cotangent = matching.cotangent(adjoint, mean, micro.weight[micro.at(rows), i])
        self._count(micro, i, rows, kind, evaluations)
        return replace(self.step(micro, i, rows, cotangent, kind=kind, need_input=False), x=x)

    def _reference(
        self, micro: MicroBatch, i: int, rows: list[int], cotangent: Tensor | Cotangent, kind: Kind
    ) -> Vjp:
        """What `step` gives by the model that training starts from, which has no parameters to learn."""
        with reference(self.chain):
            return self.step(replace(micro, graphs={}), i, rows, cotangent, kind=kind, need_parameters=False)

    def _count(
        self, micro: MicroBatch, i: int, rows: list[int], kind: Kind, evaluations: Evaluations
    ) -> None:
        count = len(rows) * self.chain.evaluations_per_step
        evaluations.again += 0 if (i, tuple(rows)) in micro.graphs else count
        evaluations.backward += 0 if kind is Kind.PASS else count


def _groups(micro: MicroBatch, i: int, wanted: set[int], singly: bool) -> Iterator[tuple[Kind, list[int]]]:
    """The wanted rows that step i is pulled back for together; singly: HO rows one at a time."""
    for kind in (*REWARDED, Kind.HO):
        rows = sorted(wanted.intersection(micro.rows(i, kind)))
        if kind is Kind.HO and singly:
            yield from ((kind, [r]) for r in rows)
        elif rows:
            yield kind, rows


def _half_order_cotangent(
    ratio: LikelihoodRatio, micro: MicroBatch, i: int, rows: list[int], carried: Tensor
) -> Cotangent:
    """Of an HO step's mean: the block's own where it ends, what is carried [rows, …] elsewhere."""
    ends = [k for k, r in enumerate(rows) if micro.ends[r][i]]
    at_end = ratio.cotangent(micro, i, [rows[k] for k in ends]) if ends else None
    these = micro.at(ends)

    def cotangent(mean: Tensor, std: Tensor) -> Tensor:
        if at_end is not None:
            carried[these] = at_end(mean[these], std[these])
        return carried

    return cotangent


def _or_zero(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient
