"""What was allocated when, by whom → the bytes alive at any time, by component.

A log is a list of entries: a block that appears, a block that goes, or a curve of what came and went on top
of everything else in a part that was rehearsed (`bench.measure.cost.replay`). Components are settled
afterwards, because only the end shows what a block was for: what a network made and left behind is an
activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

NETWORK = "network"  # the one that is trained: a UNet or a transformer
PARTS = (NETWORK, "vae", "text", "reward", "other")  # whose weights and activations are counted separately
TEMPORARIES = "temporaries"
COMPONENTS = (
    *(f"weights {part}" for part in PARTS),
    "lora",
    "gradients",
    "optimizer",
    *(f"activations {part}" for part in PARTS),
    "latents",
    "perturbations",
    TEMPORARIES,
)
PLACE = {name: n for n, name in enumerate(COMPONENTS)}
SIZE = len(COMPONENTS)
Vector = NDArray[np.float64]  # [2 · SIZE]: bytes on the device by component, then in the host's memory


@dataclass
class Call:
    """One run of a network forward. end: where in the log it ended, while that is known."""

    part: str
    end: int | None = None


@dataclass(eq=False, slots=True)
class Block:
    """A storage. label: its component, if it is known. graph: made while gradients were recorded.

    call: the network's run that made it. part: the network that was run again for a backward pass.
    """

    size: int
    label: str | None = None
    host: bool = False
    graph: bool = False
    call: Call | None = None
    part: str | None = None
    gone: int | None = None  # where in the log

    def component(self) -> str:
        """Its label; without one an activation if it outlived its network's run, else a temporary."""
        if self.label is not None:
            return self.label
        if self.graph and self.part is not None:
            return f"activations {self.part}"
        if self.graph and self.call is not None and self.call.end is not None:
            kept = self.gone is None or self.gone >= self.call.end
            return f"activations {self.call.part}" if kept else TEMPORARIES
        return TEMPORARIES


@dataclass(frozen=True)
class Curve:
    """Bytes on top of what was there, over time: [points, 2 · SIZE]."""

    points: Vector

    @property
    def highest(self) -> Vector:
        """The point with most bytes on the device."""
        return self.points[int(self.points[:, :SIZE].sum(axis=1).argmax())]


@dataclass(frozen=True)
class Entry:
    """One line of the log. sign: +1 the block appeared, -1 it went."""

    what: Block | Curve
    sign: int
    stage: str


@dataclass
class Log:
    """Everything that happened, in order."""

    entries: list[Entry] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.entries)


@dataclass(frozen=True)
class Point:
    """What was alive at one time. order: of its entry in the log."""

    order: int
    stage: str
    bytes: Vector

    @property
    def device(self) -> int:
        """Bytes on the device."""
        return int(self.bytes[:SIZE].sum())

    @property
    def host(self) -> int:
        """Bytes offloaded to the host's memory."""
        return int(self.bytes[SIZE:].sum())

    def components(self) -> dict[str, int]:
        """Bytes on the device by component."""
        return {name: int(self.bytes[n]) for name, n in PLACE.items()}


def delta(block: Block) -> tuple[int, int]:
    """Where in a `Vector` a block counts, and its bytes."""
    return PLACE[block.component()] + (SIZE if block.host else 0), block.size


def points(log: Log, start: Vector, wanted: int) -> list[Point]:
    """About `wanted` points of the log, each the highest of its stretch, so that the peak is among them.

    start: what was alive before it. The last point is the log's last. Stages have stretches of their own.
    """
    now, found = start.copy(), list[Point]()
    total, most, width = float(now[:SIZE].sum()), -1.0, max(1, len(log) // wanted)
    best: Point | None = None
    for order, entry in enumerate(log.entries):
        here, above = now, total
        if isinstance(entry.what, Block):
            place, size = delta(entry.what)
            now[place] += entry.sign * size
            total += entry.sign * size if place < SIZE else 0
            above = total
        else:
            here, above = now + entry.what.highest, total + float(entry.what.highest[:SIZE].sum())
        if best is not None and (best.order // width != order // width or best.stage != entry.stage):
            found.append(best)
            best = None
        if best is None or above > most:
            best, most = Point(order, entry.stage, here.copy()), above
    if best is not None:
        found.append(best)
    found.append(Point(len(log), log.entries[-1].stage if log.entries else "", now))
    return found


def highest(found: Sequence[Point]) -> Point:
    """The point with most bytes on the device."""
    return max(found, key=lambda point: point.device)


def most_offloaded(log: Log) -> int:
    """The most bytes in the host's memory at any time."""
    now = most = 0
    for entry in log.entries:
        if isinstance(entry.what, Curve):
            most = max(most, now + int(entry.what.points[:, SIZE:].sum(axis=1).max()))
        elif entry.what.host:
            now += entry.sign * entry.what.size
            most = max(most, now)
    return most


def nothing() -> Vector:
    """No bytes of anything."""
    return np.zeros(2 * SIZE)
