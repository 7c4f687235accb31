"""Networks on fake tensors run once per kind of call; every further call repeats what that took.

A chain runs its network hundreds of times in one optimizer step, always in one of a few ways: so many rows,
with or without a graph, perturbed, without its adapter, or neither. Each way is rehearsed once, forward and
backward, with a log of its own. A call then leaves behind what the rehearsal left behind (stand-ins for the
stored activations), and its backward pass frees them: so any number of steps, also in one graph, has exactly
the memory that it would have had, in milliseconds. What an engine does around its networks is not rehearsed
but done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from bench.engine.chain import Chain
from bench.engine.offload import is_offloading
from bench.measure.cost.ledger import COMPONENTS, SIZE, Curve, Log, Point, Vector, nothing, points
from bench.measure.cost.tracker import Tracker

CPU = torch.device("cpu")
RESOLUTION = 48  # points of a rehearsed forward or backward


@dataclass(frozen=True)
class Shape:
    """What is known of a tensor without its numbers."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    grad: bool

    @staticmethod
    def of(tensor: Tensor) -> Shape:
        """The shape of a tensor."""
        return Shape(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype, tensor.requires_grad)

    def make(self, device: str = "cpu") -> Tensor:
        """An empty tensor of this shape, without a graph; a fake one in a fake mode."""
        return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device=device)


@dataclass(frozen=True)
class Rehearsed:
    """What one kind of call takes.

    forward, backward: on top of what was there when each began. held: what the forward leaves for the
    backward. grads: those of the differentiable inputs, None where there is none. flops: of both.
    """

    leaves: list[Any]  # Shape of a tensor, or a value
    spec: TreeSpec
    forward: Curve
    backward: Curve
    held: Vector
    grads: list[Shape | None]
    flops: tuple[int, int]


Rehearsals = dict[str, dict[Any, Rehearsed]]  # by part, then by kind of call


class Postponed:
    """A chain's other parameters, put off until a network really runs.

    delta: the perturbation that was asked for. bare: whether the model without its adapter was.
    """

    def __init__(self, chain: Chain) -> None:
        """chain: whose `perturbed` and `reference` are put off."""
        self.delta: Tensor | None = None
        self.bare = False
        self._perturbed, self._reference = chain.perturbed, chain.reference

    @contextmanager
    def standing_in(self, chain: Chain) -> Iterator[None]:
        """Within the context, the chain's ways to run with other parameters are these."""
        with (
            patch.object(chain, "perturbed", self.postpone),
            patch.object(chain, "reference", self.postpone_reference),
        ):
            yield

    @contextmanager
    def postpone(self, delta: Tensor) -> Iterator[None]:
        """Stands for `Chain.perturbed`, and perturbs nothing."""
        before, self.delta = self.delta, delta
        try:
            yield
        finally:
            self.delta = before

    @contextmanager
    def postpone_reference(self) -> Iterator[None]:
        """Stands for `Chain.reference`, and takes nothing off."""
        before, self.bare = self.bare, True
        try:
            yield
        finally:
            self.bare = before

    @property
    def kind(self) -> str:
        """What kind of forward was asked for."""
        return "reference" if self.bare else "forward" if self.delta is None else "perturbed"

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Perturbs the chain or takes its adapter off, if that was asked for."""
        with (
            nullcontext() if self.delta is None else self._perturbed(self.delta),
            self._reference() if self.bare else nullcontext(),
        ):
            yield


class Replay:
    """Stands for a function of tensors: a network's forward, a decoder, a reward.

    parameters: trainable ones that it uses besides its arguments.
    """

    def __init__(
        self,
        tracker: Tracker,
        mode: FakeTensorMode,
        part: str,
        run: Callable[..., Any],
        parameters: Sequence[Tensor],
        perturbed: Postponed,
        known: dict[Any, Rehearsed],
    ) -> None:
        """part: the component it counts for. known: earlier rehearsals, by kind of call."""
        self.tracker, self.mode, self.part, self.run = tracker, mode, part, run
        self.parameters, self.perturbed, self.known = list(parameters), perturbed, known

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns, on fake tensors."""
        leaves, spec = tree_flatten((args, kwargs))
        graph = torch.is_grad_enabled()
        shapes = tuple(Shape.of(leaf) if isinstance(leaf, Tensor) else None for leaf in leaves)
        key = (shapes, len(leaves), graph, is_offloading(), self.perturbed.kind)
        if key not in self.known:
            with self.perturbed.applied():
                self.known[key] = self._rehearse(leaves, spec)
        known = self.known[key]
        inputs = _differentiable(leaves) + self._used()
        with self.tracker.call(self.part):
            outputs = self._outputs(known, inputs if graph else [])
        return tree_unflatten(outputs, known.spec)

    def _used(self) -> list[Tensor]:
        """The trainable parameters, where the adapter is on."""
        return [] if self.perturbed.bare else self.parameters

    def _outputs(self, known: Rehearsed, inputs: list[Tensor]) -> list[Any]:
        used = [t for t, g in zip(inputs, known.grads, strict=True) if g is not None] if known.grads else []
        if not used:
            self.forward(known)
            with self.mode:
                return [leaf.make() if isinstance(leaf, Shape) else leaf for leaf in known.leaves]
        made = iter(_Step.apply(self, known, *used))  # type: ignore[arg-type]
        return [next(made) if isinstance(leaf, Shape) else leaf for leaf in known.leaves]

    def forward(self, known: Rehearsed) -> list[Tensor]:
        """Play the forward; returns stand-ins for what it keeps."""
        forward = "forward" if self.perturbed.delta is None else "perturbed"
        self.tracker.worked(self.part, forward, known.flops[0])
        self.tracker.play(known.forward)
        held = []
        for place in np.flatnonzero(known.held):
            with self.mode:
                stand_in = torch.empty(int(known.held[place]), dtype=torch.uint8)
            self.tracker.mark([stand_in], COMPONENTS[place % SIZE], host=bool(place >= SIZE))
            held.append(stand_in)
        return held

    def gradients(self, known: Rehearsed) -> list[Tensor]:
        """Empty gradients of the differentiable inputs that have one: hundreds, so without the dispatcher, by
        which they would take ten times as long."""
        shapes = [shape for shape in known.grads if shape is not None]
        with _disable_current_modes():
            made: list[Tensor] = [FakeTensor(self.mode, shape.make("meta"), CPU) for shape in shapes]
        for gradient in made:
            self.tracker.see(gradient)
        return made

    def _rehearse(self, leaves: list[Any], spec: TreeSpec) -> Rehearsed:
        """Run once, forward and backward, apart from everything else."""
        tracker = self.tracker
        leaves = [
            leaf.detach().requires_grad_(leaf.requires_grad) if isinstance(leaf, Tensor) else leaf
            for leaf in leaves
        ]
        args, kwargs = tree_unflatten(leaves, spec)
        with tracker.apart() as log:
            with tracker.call(self.part):
                out = self.run(*args, **kwargs)
            made, out_spec = tree_flatten(out)
            shapes = [Shape.of(leaf) if isinstance(leaf, Tensor) else leaf for leaf in made]
            middle, flops = len(log), tracker.flops
            outputs = [t for t in made if isinstance(t, Tensor) and t.requires_grad]
            sizes = sum(t.untyped_storage().nbytes() for t in outputs)
            grads = self._back(outputs, _differentiable(leaves) + self._used()) if outputs else []
            end, all_flops = len(log), tracker.flops
            del args, kwargs, leaves, out, made, outputs
        # Only now is it settled what each block was for.
        forward = points(Log(log.entries[:middle]), nothing(), RESOLUTION)
        backward = points(Log(log.entries[middle:end]), nothing(), RESOLUTION)[:-1] if grads else []
        held = forward[-1].bytes.copy() if grads else nothing()
        if grads:  # outputs are made again by whoever plays this
            held[COMPONENTS.index(f"activations {self.part}")] -= sizes
        return Rehearsed(
            leaves=shapes,
            spec=out_spec,
            forward=_curve(forward[:-1]),
            backward=_curve(backward),
            held=np.maximum(held, 0),
            grads=grads,
            flops=(flops, all_flops - flops),
        )

    def _back(self, outputs: list[Tensor], inputs: list[Tensor]) -> list[Shape | None]:
        """Go back through the graph; what `outputs` names is freed on the way."""
        with self.mode:
            seeds = [shape.make() for shape in map(Shape.of, outputs)]
        found = torch.autograd.grad(outputs, inputs, seeds, allow_unused=True)
        return [None if g is None else Shape.of(g) for g in found]


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, replay: Replay, known: Rehearsed, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.replay, ctx.known, ctx.held = replay, known, replay.forward(known)
        shapes = [leaf for leaf in known.leaves if isinstance(leaf, Shape)]
        with replay.mode:
            outputs = [shape.make() for shape in shapes]
        fixed = (t for t, shape in zip(outputs, shapes, strict=True) if not shape.grad)
        ctx.mark_non_differentiable(*fixed)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *seeds: Tensor) -> Any:
        replay, known = ctx.replay, ctx.known
        replay.tracker.worked(replay.part, "backward", known.flops[1])
        replay.tracker.play(known.backward)
        ctx.held = None
        return None, None, *replay.gradients(known)


def _differentiable(leaves: Sequence[Any]) -> list[Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]


def _curve(found: Sequence[Point]) -> Curve:
    return Curve(np.stack([point.bytes for point in found]) if found else nothing()[None])
