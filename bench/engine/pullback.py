"""Stages 3 and 4 of a gradient: run one step again with a graph, multiply with its cotangent, free the graph.

A row carries one cotangent from the image end to the noise end: dR/dx_0 while its steps are FO or PASS, and
A ε/σ (`bench.engine.likelihood_ratio`) from an HO block's last step to its first. Nothing else keeps a graph,
and one graph lives at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.engine.batch import Batch
from bench.engine.gaussian import per_row
from bench.engine.likelihood_ratio import Counts, HalfOrder, Signal
from bench.engine.micro_batch import MicroBatch, Perturbation
from bench.engine.offload import parked
from bench.engine.plan import Kind
from bench.engine.rollout import Roller
from bench.engine.stages import FIRST_ORDER, HALF_ORDER, stage

Gradients = Sequence[Tensor | None]
Add = Callable[[MicroBatch, Kind, int, list[int], Gradients], None]


@dataclass
class Trajectory:
    """A batch that has been rolled out and scored. kinds, rewards (raw scores [B]): of the whole batch,
    every process's."""

    batch: Batch
    perturbation: Perturbation
    kinds: frozenset[Kind]
    micros: list[MicroBatch]
    rewards: Tensor
    signed: Tensor  # rewards, higher is better
    forward: int


@dataclass(frozen=True)
class PulledBack:
    """Vector–Jacobian products of one transition: with x and memory [rows, …], and with each parameter.

    x is zero where it was not asked for.
    """

    x: Tensor
    history: Tensor | None
    parameters: Gradients


@dataclass
class Carried:
    """Cotangents on their way through the chain, all rows of a micro-batch: of x and, for multistep solvers,
    memory."""

    x: Tensor
    history: Tensor | None = None


class PullBack:
    """Pulls cotangents back through the steps of a trajectory; `counts` says what that took."""

    def __init__(self, roller: Roller, offload: bool) -> None:
        """offload: park a step's activations in main memory between its forward and its backward."""
        self.roller, self.chain, self.offload = roller, roller.chain, offload
        self.counts = Counts()

    def step(
        self,
        trajectory: Trajectory,
        micro: MicroBatch,
        i: int,
        rows: list[int],
        cotangent: Tensor | Callable[[Tensor, Tensor], Tensor],
        history_cotangent: Tensor | None = None,
        *,
        x_path_only: bool = False,
        need_input: bool = True,
        need_parameters: bool = True,
    ) -> PulledBack:
        """Run step i of these rows again, with a graph, and multiply its Jacobian with the cotangent.

        cotangent: of the step's mean, [rows, …], or a function of the recomputed (mean, std) that gives it.
        history_cotangent: of the memory that the step leaves. The graph is freed on return. need_input,
        need_parameters: what to multiply with; there are no gradients of what is not asked for.
        """
        pick = torch.tensor(rows, device=micro.eta.device)
        state = micro.states[i].select(pick)
        inputs = [t for t in (state.x, state.history) if t is not None] if need_input else []
        for t in inputs:
            t.requires_grad_()
        perturbed = self.roller.perturbed(micro, trajectory.batch, i, rows, trajectory.perturbation)
        trainable = self.chain.parameters() if need_parameters and not x_path_only else []
        with perturbed:  # around the backward too: checkpointing runs the network again in there
            with torch.enable_grad(), parked(self.offload):
                out = self.roller.transition(micro, state, i, rows, x_path_only)
            seed = (
                cotangent if isinstance(cotangent, Tensor) else cotangent(out.mean.detach(), out.std.detach())
            )
            outputs, seeds = [out.mean], [seed]
            if out.history is not None and history_cotangent is not None and out.history.requires_grad:
                outputs, seeds = [out.mean, out.history], [seed, history_cotangent]
            grads = torch.autograd.grad(outputs, [*inputs, *trainable], seeds, allow_unused=True)
        self.counts.backward += len(rows) * self.chain.evaluations_per_step
        return PulledBack(
            x=_or_zero(grads[0] if inputs else None, state.x),
            history=_or_zero(grads[1], inputs[1]) if len(inputs) > 1 else None,
            parameters=list(grads[len(inputs) :]),
        )

    def whole(
        self, trajectory: Trajectory, micro: MicroBatch, *, need_parameters: bool = True
    ) -> Iterator[tuple[int, PulledBack]]:
        """dR/dx_0 pulled back through every step of a scored micro-batch, whatever its kind, last to first.

        Noise and perturbations are the trajectory's. Raises ValueError without dR/dx_0.
        """
        if micro.reward_grad is None:
            raise ValueError("pulling back through the whole chain needs a score with its gradient")
        rows, cotangent, history = list(range(len(micro.index))), micro.reward_grad, None
        for i in reversed(range(micro.steps)):
            back = self.step(trajectory, micro, i, rows, cotangent, history, need_parameters=need_parameters)
            yield i, back
            cotangent, history = back.x, back.history

    def sweep(
        self,
        trajectory: Trajectory,
        micro: MicroBatch,
        rows: list[int],
        signal: Signal,
        add: Add,
        *,
        half_order_singly: bool = False,
    ) -> None:
        """One pass over the steps, last to first, that hands `add` each step's parameter gradients.

        rows: those to pull back. add: takes the micro-batch, the kind, the step, the rows it sums over, and
        the gradients. half_order_singly: one HO row at a time.
        """
        wanted = set(rows)
        half_order = HalfOrder(self.roller, trajectory.batch, trajectory.perturbation)
        here = Carried(
            torch.zeros_like(micro.states[-1].x) if micro.reward_grad is None else micro.reward_grad
        )
        for i in reversed(range(micro.steps)):
            before = Carried(torch.zeros_like(here.x))
            for kind in (Kind.FO, Kind.PASS, Kind.HO):
                of_kind = sorted(wanted.intersection(micro.rows(i, kind)))
                singly = half_order_singly and kind is Kind.HO
                for active in [[r] for r in of_kind] if singly else [of_kind] if of_kind else []:
                    seed = here.x[active]
                    if kind is Kind.HO:
                        seed = self._half_order_seed(half_order, micro, i, active, here, signal)
                    self._pull(trajectory, micro, i, kind, active, seed, here, before, add)
            here = before

    def _pull(
        self,
        trajectory: Trajectory,
        micro: MicroBatch,
        i: int,
        kind: Kind,
        active: list[int],
        seed: Tensor | Callable[[Tensor, Tensor], Tensor],
        here: Carried,
        before: Carried,
        add: Add,
    ) -> None:
        weight = (
            micro.weight[active, i] if kind is Kind.FO else torch.ones(len(active), device=micro.eta.device)
        )
        if isinstance(
            seed, Tensor
        ):  # an FO step's weight counts for the parameters, not for what x carries on
            seed = seed * per_row(weight, seed)
        memory = None if here.history is None else here.history[active] * per_row(weight, here.x)
        onward = micro.onward[active, i].nonzero()[:, 0].tolist()
        if kind is Kind.PASS and not onward:
            return  # no parameters to learn, no earlier step to hand x to
        with stage(HALF_ORDER if kind is Kind.HO else FIRST_ORDER):
            back = self.step(
                trajectory,
                micro,
                i,
                active,
                seed,
                memory,
                x_path_only=kind is Kind.PASS,
                need_input=bool(onward),
            )
        if kind is not Kind.PASS:
            add(micro, kind, i, active, back.parameters)
        to = [active[k] for k in onward]
        if onward:
            before.x[to] = (back.x / per_row(weight, back.x))[onward]
        if onward and back.history is not None:
            if before.history is None:
                before.history = torch.zeros_like(before.x)
            before.history[to] = (back.history / per_row(weight, back.history))[onward]

    def _half_order_seed(
        self,
        half_order: HalfOrder,
        micro: MicroBatch,
        i: int,
        active: list[int],
        here: Carried,
        signal: Signal,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The cotangent of an HO step's mean: the block's own where it ends, what is carried elsewhere."""
        ends = micro.ends[active, i].nonzero()[:, 0].tolist()
        rows = [active[k] for k in ends]
        at_end = half_order.seed(micro, i, rows, signal, self.counts) if rows else None

        def seed(mean: Tensor, std: Tensor) -> Tensor:
            out = here.x[active].clone()
            if at_end is not None:
                out[ends] = at_end(mean[ends], std[ends])
            return out

        return seed


def _or_zero(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient
