"""The GPUs of this machine, dealt out to the cells that run on it at the same time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from bench.base import devices
from bench.base.errors import BenchError
from bench.run.warm import has_gpu


class Gpus:
    """Each is one cell's at a time. names: numbers or UUIDs, as CUDA_VISIBLE_DEVICES has them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.count, self._free = len(names), list(names)

    def most(self, processes: int) -> int:
        """How many cells of so many processes run at once. Raises BenchError if not even one can."""
        if processes > self.count:
            raise BenchError(
                f"--processes {processes} wants as many GPUs, and this process may use {self.count}. "
                f"{devices.ON_THE_CPU}"
            )
        return self.count // processes

    def take(self, count: int) -> tuple[str, ...]:
        """The next ones that are free; no more cells may run than `most` says."""
        taken, self._free = self._free[:count], self._free[count:]
        return tuple(taken)

    def give_back(self, names: Iterable[str]) -> None:
        """Those of a cell that has ended."""
        self._free += names


def on_this_machine() -> Gpus | None:
    """Those that this process may use, by CUDA_VISIBLE_DEVICES if that is set; None: cells run on the CPU.

    Raises BenchError where there is a GPU, or `--device cuda`, and torch cannot use it.
    """
    if not has_gpu() and devices.asked() != "cuda":
        return None
    if devices.kind() == "cpu":
        return None
    count, named = devices.count(), os.environ.get(devices.VISIBLE)
    names = [str(n) for n in range(count)] if named is None else [n.strip() for n in named.split(",")]
    if all(name.startswith("MIG-") for name in names):
        return Gpus(names)  # parts of cards: a process sees one of them, whatever it is given
    return Gpus(names[:count])  # CUDA leaves out what follows a name that it does not know
