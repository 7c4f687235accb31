"""Data parallelism without DDP: every process pulls back its share, and gradients are summed once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from bench.base.errors import BenchError

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")


class World:
    """The processes of one run. With no accelerate state it is one process and every operation is the
    identity."""

    def __init__(self, state: PartialState | None = None) -> None:
        self.rank = state.process_index if state else 0
        self.size = state.num_processes if state else 1
        self.is_main = self.rank == 0

    def share(self, count: int) -> range:
        """The indices of 0 … count-1 that this process handles: contiguous, equal. Raises BenchError if not
        divisible."""
        if count % self.size:
            raise BenchError(
                f"a batch of {count} samples does not divide among {self.size} processes: change "
                "train.prompts_per_step or train.samples_per_prompt"
            )
        each = count // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def gather(self, values: Tensor) -> Tensor:
        """Concatenate the processes' values along dim 0, in rank order."""
        if self.size == 1:
            return values
        parts = [torch.empty_like(values) for _ in range(self.size)]
        torch.distributed.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    def gather_each(self, value: T) -> list[T]:
        """The processes' values of any kind, which are pickled on the way, in rank order."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, value)
        return found

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the processes, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(values)
        return values
