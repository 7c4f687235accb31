"""Graphs held jointly, as a direct implementation holds them: from the rollout to one backward pass.

The steps that a plan differentiates run with their graph during the rollout, decoder and reward on top of it,
and all of it lives until the batch's advantages are known. Then, as in `bench.engine.pullback`, with the same
random streams and the same cotangents,

    FO  ∇ Σ R        from the rewards, through decoder and last steps to the segment's beginning
    HO  J_θ(block)ᵀ (A ε / σ)        from the mean of the block's last step to the block's beginning

No step runs twice. Memory grows with the steps that have a graph, and with the whole batch: graphs of all its
micro-batches wait together. FO and PASS steps share no graph with HO steps, so each term is a backward pass
of its own and frees what it used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.batch import Evaluations, Gradients, Graphs, MicroBatch, Trajectory
from bench.engine.chain import State, Transition, per_row
from bench.engine.likelihood_ratio import HalfOrder
from bench.engine.offload import offloaded
from bench.engine.plan import Kind
from bench.engine.rollout import Roller
from bench.engine.stages import FIRST_ORDER, HALF_ORDER, REWARD, stage

STAGED = "set train.graphs=staged"


class Joint:
    """Rolls out micro-batches with their graphs, and pulls back from them once."""

    def __init__(self, roller: Roller, offload: bool) -> None:
        """offload: keep the activations of the network (not of decoder and reward) in main memory."""
        self.roller, self.chain = roller, roller.chain
        self.activations = offloaded if offload else nullcontext

    def roll(self, micro: MicroBatch, first_order: bool) -> None:
        """Stages 1 and 2. first_order: keep graphs of FO and PASS steps and of the reward, too."""
        graphs = micro.graphs = Graphs()
        kinds = (Kind.FO, Kind.PASS, Kind.HO) if first_order else (Kind.HO,)

        def make_step(state: State, i: int) -> Transition:
            parts: list[tuple[list[int], Transition]] = []
            for kind in kinds:
                if rows := micro.rows(i, kind):
                    parts.append((rows, self._with_graph(micro, graphs, state, i, kind, rows)))
            if rows := micro.rows(i, *(kind for kind in Kind if kind not in kinds)):
                entry = state.select(_index(rows, state.x))
                parts.append((rows, self.roller.step(micro, entry, i, rows)))
            return _merged(parts)

        self.roller.roll(micro, make_step)
        if first_order:
            self._score(micro, graphs)
        else:
            self.roller.score(micro, need_grad=False)
        graphs.x.clear()  # blocks and rewards hold what is left to pull back from
        graphs.history.clear()

    def check(self, trajectory: Trajectory, whole: bool, norms: bool) -> None:
        """Raises BenchError if the graphs cannot give the gradient.

        whole: it is of all samples. norms: those of single samples' HO gradients are wanted, too.
        """
        if norms:
            raise BenchError(
                "train.graphs=joint pulls back a batch at once and measures no norms of single samples' "
                f"half-order gradients, which rlr.start=norms learns from: {STAGED}"
            )
        if not whole or any(micro.graphs is None for micro in trajectory.micros):
            raise BenchError(
                "train.graphs=joint has graphs for one gradient of the whole batch, and this method takes "
                f"several gradients of it (ddpo.inner_epochs, ddpo.minibatches): {STAGED}"
            )

    def pull(
        self, micro: MicroBatch, evaluations: Evaluations, half_order: HalfOrder
    ) -> Iterator[tuple[Kind, Gradients]]:
        """Each term's gradient, summed over rows and steps, one tensor per parameter; uses the graphs up.

        evaluations: the backward ones are added to it. half_order: gives the cotangents of HO blocks.
        """
        graphs, micro.graphs = micro.graphs, None
        assert graphs is not None  # checked
        parameters = self.chain.parameters()
        evaluations.backward += graphs.evaluations
        if graphs.rewards is not None and graphs.rewards.requires_grad:
            total, graphs.rewards = graphs.rewards.sum(), None
            with stage(FIRST_ORDER):
                found = torch.autograd.grad(total, parameters, allow_unused=True)
            yield Kind.FO, found
        if graphs.blocks:
            means, cotangents = [], []
            for i, rows, mean in graphs.blocks:
                cotangent = half_order.cotangent(micro, i, rows)
                means.append(mean)
                cotangents.append(cotangent(mean.detach(), micro.std[i][rows]))
            graphs.blocks.clear()
            with stage(HALF_ORDER):
                found = torch.autograd.grad(means, parameters, cotangents, allow_unused=True)
            yield Kind.HO, found

    def _with_graph(
        self, micro: MicroBatch, graphs: Graphs, state: State, i: int, kind: Kind, rows: list[int]
    ) -> Transition:
        """Step i of these rows, all of one kind, on top of the graphs that lead to it.

        An FO step's weight counts for the parameters, not for what x carries on: it multiplies the
        cotangent where it enters the step and divides it where it leaves.
        """
        pick = _index(rows, state.x)
        entry, onward = state.select(pick), micro.onward[pick, i].tolist()
        weight = micro.weight[pick, i] if kind is Kind.FO else torch.ones_like(micro.weight[pick, i])
        with torch.enable_grad():
            x = _linked(entry.x, rows, onward, graphs.x, 1 / weight)
            if entry.history is not None:
                history = _linked(entry.history, rows, onward, graphs.history, 1 / weight)
                entry = State(x, history, entry.valid)
            else:
                entry = State(x)
            with self.activations():
                out = self.roller.transition(micro, entry, i, rows, x_path_only=kind is Kind.PASS)
            _keep(graphs.x, rows, out.mean, weight)
            if out.history is not None:
                _keep(graphs.history, rows, out.history, weight)
            ends = micro.ends[pick, i].nonzero()[:, 0].tolist() if kind is Kind.HO else []
            if ends:
                graphs.blocks.append((i, [rows[k] for k in ends], out.mean[ends]))
        if kind is not Kind.PASS:
            graphs.evaluations += len(rows) * self.chain.evaluations_per_step
        return out

    @stage(REWARD)
    def _score(self, micro: MicroBatch, graphs: Graphs) -> None:
        """Rewards with the graphs of decoder and reward, in chunks that stay alive together."""
        rows, chunk = list(range(len(micro.index))), self.roller.reward_chunk
        last = set(micro.rows(micro.steps - 1, Kind.FO, Kind.PASS))
        x0 = micro.states[-1].x
        with torch.enable_grad():
            ones = torch.ones(len(rows), device=x0.device)
            x0 = _linked(x0, rows, [r in last for r in rows], graphs.x, ones)
            parts = [slice(k, k + chunk) for k in range(0, len(rows), chunk)]
            graphs.rewards = torch.cat([self.roller.signed(micro, rows[p], x0[p]).float() for p in parts])
        micro.rewards = graphs.rewards.detach()


def _index(rows: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(rows, device=like.device)


def _linked(
    value: Tensor, rows: Sequence[int], onward: Sequence[bool], live: dict[int, Tensor], factor: Tensor
) -> Tensor:
    """The value, bit for bit, with a gradient that goes on, times a factor [rows], where `onward` says so."""
    if not any(onward):
        return value
    before = torch.stack(
        [live[r] if on else value[k] for k, (r, on) in enumerate(zip(rows, onward, strict=True))]
    )
    return value + (before - before.detach()) * per_row(factor, value)


def _keep(live: dict[int, Tensor], rows: Sequence[int], value: Tensor, weight: Tensor) -> None:
    live.update(zip(rows, (per_row(weight, value) * value).unbind(), strict=True))


def _merged(parts: Sequence[tuple[list[int], Transition]]) -> Transition:
    """All rows' transition, in order, from those of groups of rows; without graphs."""
    place = {r: n for n, r in enumerate(r for rows, _ in parts for r in rows)}
    order = [place[r] for r in range(len(place))]

    def together(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([t.detach() for t in tensors])[order]

    histories = [step.history for _, step in parts if step.history is not None]
    return Transition(
        together([step.mean for _, step in parts]),
        together([step.std for _, step in parts]),
        together(histories) if histories else None,
    )
