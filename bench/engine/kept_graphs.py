"""Graphs of single steps, and which of them are kept from the rollout.

A step that is pulled back needs a graph from x_i to the mean of x_{i+1}. It is built by running the step with
one: again, for the pullback alone, or in the rollout already, if there is memory to keep it until the batch's
advantages are known. A kept graph is one step's, cut off from the steps before, so both ways multiply the
same Jacobian with the same cotangent: what is kept changes what a gradient costs, never the gradient.

- `staged` keeps none: one graph at a time, each step run again.
- `auto` keeps as many as a budget allows, of steps that all samples of a micro-batch are pulled back through
  alike. The network then runs on the same rows as in `staged`, so the numbers are the same to the last bit.
- `joint` keeps all of them, whatever they take, as implementations do that call `backward` once. Samples of a
  micro-batch that differ at a step run apart, so numbers differ by rounding.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import psutil
import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.base.units import readable_size
from bench.engine.at_once import split
from bench.engine.batch import Graph, MicroBatch
from bench.engine.chain import State, Transition, at
from bench.engine.offload import offloaded
from bench.engine.plan import REWARDED, Kind
from bench.engine.rollout import Roller

Keep = Literal["auto", "staged", "joint"]
PULLED_BACK = (*(kind for kind in REWARDED if kind is not Kind.REF), Kind.HO)


@dataclass
class Kept:
    """Of one batch's rollout: steps of samples that are pulled back, those whose graphs were kept, and their
    bytes (of `auto` alone)."""

    steps: int = 0
    kept: int = 0
    bytes: int = 0

    def __str__(self) -> str:
        """What to tell the user."""
        some = f"{self.kept} of {self.steps}" if self.kept < self.steps else f"all {self.steps}"
        rest = "; the others are run again" if self.kept < self.steps else ""
        return (
            f"graphs of {some} steps that are pulled back are kept from the rollout "
            f"({readable_size(self.bytes)}){rest}. train.graphs=staged keeps none"
        )


class Graphs:
    """Builds the graphs of steps, and keeps those of the rollout that it may."""

    def __init__(self, roller: Roller, offload: bool, keep: Keep, budget: Callable[[int], int]) -> None:
        """offload: keep activations in main memory between a step's forward and its backward. budget: bytes
        that `auto` may keep, asked for at every batch, from what earlier ones needed besides (of a GPU)."""
        self.roller, self.keep, self.budget = roller, keep, budget
        self.activations = offloaded if offload else nullcontext
        self._needed = 0  # bytes of a GPU that a batch took, without its kept graphs: the most so far
        self.left = 0  # of the budget, for this batch
        self.together: int | None = 1  # samples that are pulled back at once
        self.kinds: tuple[Kind, ...] = PULLED_BACK
        self.kept = Kept()
        # Bytes of a step's graph, by rows, kind, and whether the gradient goes on to x_i.
        self._sizes: dict[tuple[int, Kind, bool], int] = {}
        self._alive = weakref.WeakSet[Graph]()  # one that is dropped gives its bytes back

    def start_batch(self, together: int | None, first_order: bool) -> None:
        """Forget what was counted of the batch before. first_order: dR/dx_0 is pulled back.

        together: samples that are pulled back at once; None: not all of a micro-batch, so that no graph would
        serve. Raises BenchError if all are to be kept then.
        """
        if together is None and self.keep == "joint":
            raise BenchError(
                "train.graphs=joint keeps graphs for gradients of whole micro-batches, and this method takes "
                "them of single samples or of some (ddpo.minibatches, grpo.minibatches, rlr.start=norms): "
                "set train.graphs=staged or auto"
            )
        self.together = together
        self.kinds = PULLED_BACK if first_order else (Kind.HO,)
        self.kept = Kept()
        if self.keep == "auto":
            self.left = self.budget(self._needed) - sum(graph.bytes for graph in self._alive)

    def end_batch(self) -> None:
        """Learn what a GPU needs for a batch. Its high-water mark is the caller's to reset."""
        device = self.roller.chain.device
        if device.type == "cuda":
            self._needed = max(self._needed, torch.cuda.max_memory_allocated(device) - self.kept.bytes)

    def build(self, micro: MicroBatch, i: int, rows: list[int], kind: Kind, *, need_input: bool) -> Graph:
        """Run step i of these rows with the graph of a kind, from where the rollout stood before it."""
        state = micro.states[i].select(micro.at(rows))
        inputs = [t for t in (state.x, state.history) if t is not None] if need_input else []
        for t in inputs:
            t.requires_grad_()
        with torch.enable_grad(), self.activations():
            return Graph(inputs, self.roller.transition(micro, state, i, rows, kind))

    def make_step(self, micro: MicroBatch, state: State, i: int) -> Transition:
        """Step i of the rollout; what it returns has no graph."""
        everyone = list(range(len(micro.index)))
        if self.together is None or self.keep == "staged":
            return self.roller.step(micro, state, i, everyone)
        groups = [
            (kind, rows)
            for part in split(len(everyone), self.together)
            for kind in self.kinds
            if (rows := [r for r in micro.rows(i, kind) if r in part])
            # else no parameters to learn, no earlier step to hand x to:
            and (kind is not Kind.PASS or any(micro.onward[r][i] for r in rows))
        ]
        self.kept.steps += sum(len(rows) for _, rows in groups)
        if self.keep == "auto":
            self._keep_z(micro, i)
            if [len(rows) for _, rows in groups] != [len(everyone)]:
                return self.roller.step(micro, state, i, everyone)
        parts: list[tuple[list[int], Transition]] = []
        for kind, rows in groups:
            parts.append((rows, self._kept(micro, state, i, kind, rows)))
        if rows := sorted(set(everyone).difference(*(rows for _, rows in groups))):
            parts.append((rows, self._plain(micro, state, i, rows)))
        return _merged(parts)

    def _keep_z(self, micro: MicroBatch, i: int) -> None:
        """Keep the directions of step i, which the gradient needs again, where there is room for them."""
        shared = micro.perturbation.shared
        steps, step = (range(micro.steps), -1) if shared else ((i,), i)
        rows = sorted({r for s in steps for r in micro.rows(s, Kind.ZO)}) if step not in micro.z else []
        size = 4 * len(rows) * sum(p.numel() for p in self.roller.chain.parameters())
        if rows and size <= self.left:
            micro.z[step] = rows, self.roller.z(micro, i, rows)
            self.left -= size

    def _plain(self, micro: MicroBatch, state: State, i: int, rows: list[int]) -> Transition:
        return self.roller.step(micro, state.select(micro.at(rows)), i, rows)

    def _kept(self, micro: MicroBatch, state: State, i: int, kind: Kind, rows: list[int]) -> Transition:
        """The step with a graph that is kept, where there is room for it, else without."""
        onward = kind is not Kind.AM and any(micro.onward[r][i] for r in rows)
        size = len(rows), kind, onward
        known = self._sizes.get(size, 0)
        if self.keep == "auto" and known > self.left:
            return self._plain(micro, state, i, rows)
        with nullcontext([known]) if known or self.keep == "joint" else _measured() as measured:
            graph = self.build(micro, i, rows, kind, need_input=onward)
        graph.bytes = self._sizes[size] = measured[0]
        if self.keep == "joint" or graph.bytes <= self.left:
            self.left -= graph.bytes
            self.kept.kept += len(rows)
            self.kept.bytes += graph.bytes
            self._alive.add(graph)
            micro.graphs[i, tuple(rows)] = graph
        return graph.out.detached()


def spare_memory(device: torch.device, needed: int) -> int:
    """Bytes that graphs may take: in main memory a quarter of what is free. On a GPU nothing before a batch
    has shown what it needs, then most of what it left. needed: what it has shown; 0: nothing yet."""
    if device.type != "cuda":
        return psutil.virtual_memory().available // 4
    if needed == 0:
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    return int(0.8 * (free + torch.cuda.memory_reserved(device) - needed))


@contextmanager
def _measured() -> Iterator[list[int]]:
    """[bytes that autograd stores within the context], without weights, which are there anyway."""
    found, storages = [0], dict[int, Tensor]()

    def pack(tensor: Tensor) -> Tensor:
        weight = isinstance(tensor, torch.nn.Parameter) or isinstance(tensor._base, torch.nn.Parameter)
        storage = tensor.untyped_storage()
        if not weight and storage.data_ptr() not in storages:
            storages[storage.data_ptr()] = tensor  # kept, so that no other takes its place
            found[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def _merged(parts: list[tuple[list[int], Transition]]) -> Transition:
    """All rows' transition, in order, from those of groups of rows."""
    if len(parts) == 1:
        return parts[0][1]
    places = [r for rows, _ in parts for r in rows]
    order = at(sorted(range(len(places)), key=places.__getitem__), parts[0][1].mean.device)
    histories = [step.history for _, step in parts if step.history is not None]
    return Transition(
        torch.cat([step.mean for _, step in parts])[order],
        torch.cat([step.std for _, step in parts])[order],
        torch.cat(histories)[order] if histories else None,
    )
