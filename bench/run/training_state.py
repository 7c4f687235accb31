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
        """Put back a checkpoint."""
        device = self.parameters[0].device if self.parameters else None
        self.put_back(torch.load(io.BytesIO(data), map_location=device, weights_only=True))
