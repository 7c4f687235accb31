"""Sending a cell to trackers: everything that is settled and not yet there, each step once.

What a tracker has already it says itself, so that a kill between two writes loses and doubles nothing.
`tracking.json` in the cell's directory has the names of its runs, and a digest of what was sent: where the
cell's files no longer begin with that, because damage made it fall back to an older checkpoint, a new run is
started. A tracker that fails is told of once and left out; the others go on.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.base.errors import BenchError
from bench.base.files import read_json, write_atomically
from bench.base.locks import lock
from bench.run.store import CellDir, CellInUse, ResultsDir
from bench.run.tracking.asked import later
from bench.run.tracking.beside import TOLD
from bench.run.tracking.records import digest, records, settled
from bench.run.tracking.trackers import Tracker, tracker

NOTE = "tracking.json"
LOCK = "lock-tracking"  # begins as the cell's own lock, so that `--force` leaves it
LOOK_SECONDS = 1.0  # between two looks at the files of a cell that runs
PATIENCE = 60.0  # seconds to wait for a process that is just ending to send


@dataclass
class _Sent:
    """How far one tracker is."""

    tracker: Tracker
    step: int
    digest: str
    count: int = 0


class Sender:
    """Sends one cell to some trackers. failed: whether one of them could not be served to the end."""

    def __init__(self, cell: CellDir, names: Sequence[str]) -> None:
        self.cell, self.failed = cell, False
        self.results = ResultsDir(cell.path.absolute().parents[1])
        self._sent = dict[str, _Sent]()
        for name in names:
            self._trying(name, lambda name=name: self._open(name))

    def send(self) -> None:
        """What is settled and not yet sent."""
        for name in list(self._sent):
            self._trying(name, lambda name=name: self._send(name))

    def finish(self) -> dict[str, int]:
        """Send what is left and close the runs. Returns how many steps were sent to each tracker."""
        self.send()
        status = self.cell.status()
        for name, sent in list(self._sent.items()):
            self._trying(name, lambda sent=sent: sent.tracker.finish(status))
        return {name: sent.count for name, sent in self._sent.items()}

    def _open(self, name: str) -> None:
        found = tracker(name, self.cell, self.results)
        noted = self._notes().get(name)
        if noted is not None and noted["at"] != found.at:
            noted = None  # that run is somewhere else
        if noted is not None and not found.starts_anew and not self._is_kept(noted):
            print(
                f"{TOLD}{self.cell.id}: steps up to {noted['step']} were sent to {name} and then taken back, "
                "because of damaged files: they are sent to a new run",
                flush=True,
            )
            noted = None
        run = found.start(None if noted is None else noted["run"])
        last = found.last()
        self._sent[name] = _Sent(found, last, digest(records(self.cell, -1, last)))
        self._note(name, run)
        self._send(name)  # before others are loaded, which takes some of them long

    def _is_kept(self, noted: dict[str, Any]) -> bool:
        """Whether what was sent is still what the cell's files begin with."""
        return digest(records(self.cell, -1, noted["step"])) == noted["digest"]

    def _send(self, name: str) -> None:
        sent, last = self._sent[name], settled(self.cell)
        if last <= sent.step:
            return
        new = records(self.cell, sent.step, last)
        for record in new:
            sent.tracker.send(record)
            sent.step, sent.digest, sent.count = record.step, digest([record], sent.digest), sent.count + 1
        if new:
            self._note(name)

    def _notes(self) -> dict[str, Any]:
        return read_json(self.cell.path / NOTE) or {}

    def _note(self, name: str, run: str | None = None) -> None:
        notes, sent = self._notes(), self._sent[name]
        run = notes[name]["run"] if run is None else run
        notes[name] = {"run": run, "at": sent.tracker.at, "step": sent.step, "digest": sent.digest}
        write_atomically(self.cell.path / NOTE, json.dumps(notes, indent=2) + "\n")

    def _trying(self, name: str, do: Callable[[], object]) -> None:
        """Whatever a tracker's package raises must not end the others; the trace is in tracking.txt."""
        try:
            do()
        except Exception as error:
            self.failed = True
            self._sent.pop(name, None)
            if not isinstance(error, BenchError):
                traceback.print_exc()
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            told = " ".join(str(error if isinstance(error, BenchError) else reason).split())
            print(
                f"{TOLD}{name} cannot be reached or refuses what it is sent ({told}). The training goes on; "
                f"what is missing can be sent later:  {later(self.results.path, [name])}",
                flush=True,
            )


@contextmanager
def alone(cell: CellDir, patience: float) -> Iterator[None]:
    """Only one process at a time sends a cell. Raises CellInUse."""
    with (cell.path / LOCK).open("a+") as stream:
        deadline = time.monotonic() + patience
        while not lock(stream, cell.path):
            if time.monotonic() > deadline:
                stream.seek(0)
                raise CellInUse(f"{cell.id} is being sent by {stream.read().strip()}")
            time.sleep(0.1)
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        yield


def send_stored(cell: CellDir, names: Sequence[str]) -> tuple[dict[str, int], bool]:
    """Send what is stored of a cell. Returns how many steps each tracker got, and whether one failed."""
    with alone(cell, 0.0):
        sender = Sender(cell, names)
        return sender.finish(), sender.failed


def follow(cell: CellDir, names: Sequence[str], ended: threading.Event) -> int:
    """Send a cell while it runs, until it has ended. Returns the exit code: 1 if something was not sent."""
    try:
        with alone(cell, PATIENCE):
            sender = Sender(cell, names)
            while not ended.wait(LOOK_SECONDS):
                sender.send()
            sender.finish()
            return int(sender.failed)
    except CellInUse as error:
        print(f"{TOLD}{error}", flush=True)
        return 1
    finally:
        sys.stdout.flush()
