"""How many samples go through a network at once: a number, or as many as the device's memory takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

from bench.base.console import progress
from bench.base.lazy import torch

T = TypeVar("T")
Setting = int | Literal["auto"]


class AtOnce:
    """A number of samples; `auto` is all that there are, halved whenever a GPU's memory runs out.

    Main memory that runs out ends a process without a word, so nothing is halved on a CPU.
    """

    def __init__(self, setting: Setting, name: str) -> None:
        """name: of the setting, as the user knows it."""
        self.auto, self.name = setting == "auto", name
        self._most = None if setting == "auto" else setting

    def of(self, whole: int) -> int:
        """So many of `whole` samples."""
        return whole if self._most is None else min(self._most, whole)

    def run(self, whole: int, work: Callable[[int], T]) -> T:
        """work(samples at once), called again with half as many where memory runs out.

        Raises torch.OutOfMemoryError if the number was given, or if one sample is too many.
        """
        while True:
            count = self.of(whole)
            try:
                return work(count)
            except torch.OutOfMemoryError:
                if not self.auto or count == 1:
                    raise
            self._most = (count + 1) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            progress(f"no memory for {count} samples at once: {self._most} from now on ({self.name}=auto)")


def least(setting: Setting) -> int:
    """The fewest samples that a run may come down to."""
    return 1 if setting == "auto" else setting


def split(rows: int, count: int) -> list[range]:
    """The places of `rows` samples, `count` at a time."""
    return [range(start, min(start + count, rows)) for start in range(0, rows, count)]
