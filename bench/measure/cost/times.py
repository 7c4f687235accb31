"""Seconds of one optimizer step by what they went into, and how many of them are the networks' own."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch

from bench.engine.batch import Batch
from bench.engine.stages import (
    DECODE,
    FIRST_ORDER,
    HALF_ORDER,
    OPTIMIZER,
    REWARD,
    ROLLOUT,
    ZEROTH_ORDER,
    listening,
)
from bench.measure.cost.step import Subject, entrances, step

KINDS: tuple[str, ...] = ("sampling", "decode", "reward", "backward", "optimizer", "rest")
KIND_OF = {
    ROLLOUT: "sampling",
    DECODE: "decode",
    REWARD: "reward",
    FIRST_ORDER: "backward",
    HALF_ORDER: "backward",
    ZEROTH_ORDER: "backward",
    OPTIMIZER: "optimizer",
}


@dataclass(frozen=True)
class Seconds:
    """How long the optimizer steps of one batch take, in seconds.

    parts: by `KINDS`. reward has its own gradient and the decoder's; backward the repeated forward passes of
    its steps; rest is texts and what is between the stages. network: of the whole, what networks took
    forward and backward; None where it was not measured.
    """

    parts: dict[str, float]
    network: float | None = None

    @property
    def total(self) -> float:
        """Seconds of the whole step."""
        return sum(self.parts.values())

    @property
    def overhead(self) -> float | None:
        """The whole over its network calls: 1 is a harness that costs nothing."""
        return None if not self.network else self.total / self.network


class Stopwatch:
    """Listens to stages (`bench.engine.stages`): seconds by kind, and in calls of networks."""

    def __init__(self, device: torch.device) -> None:
        """device: is waited for whenever something begins or ends."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.network = 0.0
        self._device, self._names, self._depth = device, list[str](), 0
        self._last = self._now()

    def enter(self, name: str) -> None:
        """A stage begins (`bench.engine.stages`)."""
        self._tick()
        self._names.append(KIND_OF[name])

    def leave(self) -> None:
        """The innermost stage ends."""
        self._tick()
        self._names.pop()

    def stop(self) -> Seconds:
        """End the last part and return all seconds."""
        self._tick()
        return Seconds({kind: self.seconds[kind] for kind in KINDS}, self.network)

    def called(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its seconds counted as the networks'."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._depth:
                return run(*args, **kwargs)
            self._depth, started = 1, self._now()
            try:
                return run(*args, **kwargs)
            finally:
                self._depth = 0
                self.network += self._now() - started

        return timed

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def _tick(self) -> None:
        now = self._now()
        self.seconds[self._names[-1] if self._names else "rest"] += now - self._last
        self._last = now


def timed_step(subject: Subject, batch: Batch, device: torch.device) -> Seconds:
    """Take all optimizer steps of a batch, and the time."""
    with _watching(subject, Stopwatch(device)) as watch:
        step(subject, batch)
        return watch.stop()


@contextmanager
def _watching(subject: Subject, watch: Stopwatch) -> Iterator[Stopwatch]:
    places: list[tuple[object, str]] = [
        *((place, name) for _, place, name in entrances(subject.chain, subject.reward)),
        (subject.chain, "condition"),
        (torch.autograd, "grad"),
    ]
    with ExitStack() as stack:
        stack.enter_context(listening(watch))
        for place, name in places:
            stack.enter_context(patch.object(place, name, watch.called(getattr(place, name))))
        yield watch
