"""What one optimizer step takes: the result of a simulation or a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.measure.cost.ledger import Point, highest, most_offloaded, nothing, points
from bench.measure.cost.step import StepWork, Subject
from bench.measure.cost.times import Seconds
from bench.measure.cost.tracker import Operations, Tracker

POINTS = 400  # of a timeline


@dataclass(frozen=True)
class Usage:
    """Bytes are those of live tensors. device, host: the most at any time, on the device and offloaded.

    components: of what was on the device at its peak. timeline: the step in order, thinned; it has the
    peak. operations: of matrix products, convolutions and attention; a multiplication with an addition is
    two. seconds: of the step; measured, or predicted. process: most resident memory of the process.
    allocated, reserved: most that torch took of a GPU. The last three where they were measured.
    """

    dtype: str
    resolution: int | str | None

    device: int
    host: int
    components: Mapping[str, int]
    timeline: tuple[Point, ...]
    work: StepWork
    operations: Operations
    seconds: Seconds | None = None
    process: int | None = None
    allocated: int | None = None
    reserved: int | None = None

    def of(self, kind: str) -> int:
        """Bytes of a component at the peak, or of all that begin with its name: `weights`, `activations`."""
        return sum(size for name, size in self.components.items() if name.split()[0] == kind or name == kind)

    @property
    def flops(self) -> int:
        """Floating-point operations of the whole step."""
        return sum(self.operations.values())

    @property
    def peak_stage(self) -> str:
        """What the engine was at when it took most."""
        return highest(self.timeline).stage


def usage(tracker: Tracker, subject: Subject, work: StepWork) -> Usage:
    """The usage that a tracker logged while `work` was done."""
    found = points(tracker.log, nothing(), POINTS)
    top = highest(found)
    return Usage(
        subject.dtype,
        subject.resolution,
        top.device,
        most_offloaded(tracker.log),
        top.components(),
        tuple(found),
        work,
        dict(tracker.operations),
    )
