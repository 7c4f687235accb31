"""What a checkpoint holds of a training: all that its next batch depends on."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from bench.engine.method import Method
from bench.run.spent import Counters


class TrainingState:
    """Parameters, the optimizer's and the method's state, and counters, where they live."""

    def __init__(
        self,
        counters: Counters,
        parameters: Sequence[torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        method: Method,
    ) -> None:
        self.counters, self.parameters, self.optimizer, self.method = counters, parameters, optimizer, method

    def _now(self) -> dict[str, Any]:
        return {
            "counters": asdict(self.counters),
            "parameters": [p.detach() for p in self.parameters],
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.state,
        }

    def copied(self) -> dict[str, Any]:
        """As it is now, for `put_back`, whatever changes afterwards."""
        return copy.deepcopy(self._now())

    def put_back(self, state: dict[str, Any]) -> None:
        """As it was when it was copied."""
        for name, value in state["counters"].items():
            setattr(self.counters, name, value)
        with torch.no_grad():
            for parameter, value in zip(self.parameters, state["parameters"], strict=True):
                parameter.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.method.state.clear()
        self.method.state.update(state["method"])

    def to_bytes(self) -> bytes:
        """As a checkpoint."""
        stream = io.BytesIO()
        torch.save(self._now(), stream)
        return stream.getvalue()

    def from_bytes(self, data: bytes) -> None:
        """Put back a checkpoint.

        It is read to main memory, from where the optimizer takes to a GPU what belongs there. Its counts of
        steps do not: they would be read back for each parameter at each step.
        """
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        device = self.parameters[0].device if self.parameters else torch.device("cpu")
        self.put_back(state | {"method": _on(device, state["method"])})


def _on(device: torch.device, value: Any) -> Any:
    """The same with its tensors on a device."""
    if isinstance(value, dict):
        return {key: _on(device, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on(device, inner) for inner in value)
    return value.to(device) if isinstance(value, torch.Tensor) else value
