"""Data parallelism without DDP: every process pulls back its share, and gradients are summed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from bench.base.errors import BenchError

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")


class Interrupted(Exception):
    """The work is to be left where it is. reason: 1 or more, what `World.stop` said; the largest of all."""

    def __init__(self, reason: int) -> None:
        super().__init__(reason)
        self.reason = reason


class World:
    """The processes of one run. With no accelerate state it is one process and every operation is the
    identity.

    stop: why the work is to be left, or 0 to go on; asked often. One process may leave in the middle of
    anything (`check`); the others hear of it where they next meet, which is before they exchange values.
    """

    stop: Callable[[], int]

    def __init__(self, state: PartialState | None = None) -> None:
        self.stop = lambda: 0
        self._state = state
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
        self.meet()
        parts = [torch.empty_like(values) for _ in range(self.size)]
        torch.distributed.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    def gather_each(self, value: T) -> list[T]:
        """The processes' values of any kind, which are pickled on the way, in rank order."""
        if self.size == 1:
            return [value]
        self.meet()
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, value)
        return found

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the processes, in place."""
        if self.size > 1:
            self.meet()
            torch.distributed.all_reduce(values)
        return values

    def check(self) -> None:
        """Raise Interrupted if this process is to stop. The others go on until they next meet."""
        if reason := self.stop():
            raise Interrupted(self.largest(reason))

    def meet(self) -> None:
        """Raise Interrupted, on every process, if one of them is to stop. All of them have to come here."""
        if reason := self.largest(self.stop()):
            raise Interrupted(reason)

    def hear(self) -> None:
        """The same at the end of the work, when it is too late to stop oneself: if another has left it."""
        if reason := self.largest(0):
            raise Interrupted(reason)

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers. All of them have to come here."""
        if self.size == 1 or self._state is None:
            return number
        numbers = torch.tensor([number], device=self._state.device)
        torch.distributed.all_reduce(numbers, op=torch.distributed.ReduceOp.MAX)
        return int(numbers)
