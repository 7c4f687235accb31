"""Live memory, operation by operation: every storage that appears and goes, on real and on fake tensors.

A dispatch mode sees every operator's results, those of backward passes too; a weak reference tells when a
storage goes. What an operator uses inside itself, a library's workspace for instance, is not seen.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bench.measure.cost.ledger import Block, Call, Curve, Entry, Log

aten: Any = torch.ops.aten
Label = Callable[[Tensor], str | None]  # a tensor's component, or None
Operations = Mapping[tuple[str, str, str], int]  # FLOP by stage, part, direction


class Tracker(TorchDispatchMode):
    """Logs the storages that appear while it is active, until they go.

    log: of what happens now. operations: floating-point operations of matrix products, convolutions and
    attention.
    """

    def __init__(self, label: Label | None = None, device: torch.device | None = None) -> None:
        """label: names the component of what is made outside of all networks, if it can tell.

        device: what is elsewhere is the host's memory. Without one everything is on the device.
        """
        super().__init__()
        self.device = device
        self.log = Log()
        self.operations: Counter[tuple[str, str, str]] = Counter()
        self._label = label
        self._known: dict[int, tuple[Block, weakref.ref[Any]]] = {}
        self._stages: list[str] = []
        self._calls: list[Call] = []
        self._again: list[str] = []  # networks that are running again for a backward pass
        self._part_of: dict[int, str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, count its work and log its results."""
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # a question that is asked hundreds of thousands of times
        out = func(*args, **(kwargs or {}))
        self._count(func, args, kwargs or {}, out)
        if isinstance(out, Tensor):
            self.see(out)
        else:
            for leaf in tree_leaves(out):
                if isinstance(leaf, Tensor):
                    self.see(leaf)
        return out

    # What happens, told from outside

    def enter(self, name: str) -> None:
        """A stage begins (`bench.engine.stages`)."""
        self._stages.append(name)

    def leave(self) -> None:
        """The innermost stage ends."""
        self._stages.pop()

    @property
    def stage(self) -> str:
        """The innermost stage, empty outside of all."""
        return self._stages[-1] if self._stages else ""

    @property
    def flops(self) -> int:
        """All floating-point operations since the log began."""
        return self.operations.total()

    def worked(self, part: str, direction: str, flops: int) -> None:
        """Count operations of a part. direction: forward, backward, or perturbed: forward with a row's own
        parameters."""
        self.operations[self.stage, part, direction] += flops

    @contextmanager
    def call(self, part: str) -> Iterator[None]:
        """A context for one run of a network: what is made in it with a graph and stays is its activation."""
        call = Call(part)
        self._calls.append(call)
        try:
            yield
        finally:
            self._calls.pop()
            call.end = len(self.log)

    @contextmanager
    def apart(self) -> Iterator[Log]:
        """Within the context, a log of its own is written, and operations are counted from zero."""
        outer, operations = self.log, self.operations
        self.log, self.operations = Log(), Counter()
        try:
            yield self.log
        finally:
            self.log, self.operations = outer, operations

    def play(self, curve: Curve) -> None:
        """Log what came and went in something that was rehearsed."""
        self.log.entries.append(Entry(curve, 0, self.stage))

    def mark(self, tensors: Iterable[Tensor | None], label: str, host: bool = False) -> None:
        """Say what tensors are, also of those that were there before. host: they stand for the host's."""
        for tensor in tensors:
            if tensor is not None:
                self.see(tensor)
                block, _ = self._known[tensor.untyped_storage()._cdata]
                block.label, block.host = label, block.host or host

    # The networks

    @contextmanager
    def watching(self, networks: dict[str, list[nn.Module]]) -> Iterator[None]:
        """Within the context, the runs of these networks' layers in backward passes (checkpointing) are
        told."""
        self._part_of = {id(m): part for part, found in networks.items() for n in found for m in n.modules()}
        handles = [
            nn.modules.module.register_module_forward_pre_hook(self._layer_begins),
            nn.modules.module.register_module_forward_hook(self._layer_ends, always_call=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._part_of = {}

    def _layer_begins(self, module: nn.Module, inputs: Any) -> None:
        if not self._calls and id(module) in self._part_of:
            self._again.append(self._part_of[id(module)])

    def _layer_ends(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not self._calls and self._again and id(module) in self._part_of:
            self._again.pop()

    # What was made

    def see(self, tensor: Tensor) -> None:
        """Log a tensor's storage, unless it is known; for what was made without the dispatcher, too."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        call = self._calls[-1] if self._calls else None
        again = self._again[-1] if self._again else None
        label = self._label(tensor) if self._label is not None and call is None else None
        host = self.device is not None and tensor.device.type != self.device.type
        block = Block(storage.nbytes(), label, host, torch.is_grad_enabled(), call, again)

        home = self.log

        def gone(_: Any) -> None:
            del self._known[key]
            block.gone = len(home)
            home.entries.append(Entry(block, -1, self.stage))

        self._known[key] = block, weakref.ref(storage, gone)
        home.entries.append(Entry(block, 1, self.stage))

    def _count(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        packet = func._overloadpacket
        if packet in FLOPS:
            part = self._calls[-1].part if self._calls else self._again[-1] if self._again else "other"
            direction = "forward" if self._calls else "backward"
            self.worked(part, direction, FLOPS[packet](*args, **kwargs, out_val=out))

    def close(self) -> None:
        """Forget what is still alive: no more is told of it."""
        self._known.clear()


FLOPS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
}
