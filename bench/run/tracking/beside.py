"""The process beside a cell's own that sends it to trackers, as the process that started both sees it.

It ends when its standard input closes, after it has sent what was left: when the cell has ended, and also
when the process that started both has died. Imports no torch and no tracker.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from bench.base.console import caution, progress

COMMAND = "track-cell"
OUTPUT = "tracking.txt"
TOLD = "caution: "  # how lines of its output begin that are passed on
QUIET_SECONDS = 3.0  # before it is said what is waited for
PATIENCE = 600.0  # seconds to wait at the end for what is still being sent; trackers give up before
POLL_SECONDS = 0.1

_told = set[str]()  # of this process: one tracker that is not there is told of once, not for every cell


class Started(Protocol):
    """What is needed of subprocess.Popen."""

    stdin: Any

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        ...

    def kill(self) -> None:
        """End it now."""
        ...


class Beside:
    """The process that sends one cell."""

    def __init__(self, process: Started, output: Path) -> None:
        """output: the file that it prints to, after what others printed there before it started."""
        self.process, self.output = process, output
        self._seen = output.stat().st_size

    def close(self) -> None:
        """Have it send what is left and end."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def look(self) -> bool:
        """Pass on what it has to tell; whether it has ended."""
        code = self.process.poll()
        with self.output.open("rb") as stream:
            stream.seek(self._seen)
            lines = stream.read()
        lines = lines[: lines.rfind(b"\n") + 1]
        self._seen += len(lines)
        for line in lines.decode(errors="replace").splitlines():
            if line.startswith(TOLD):
                _tell(line.removeprefix(TOLD))
        return code is not None

    def tell_end(self) -> None:
        """If it ended other than by itself."""
        code = self.process.poll()
        if code not in (0, 1):
            how = "is still busy and is ended" if code is None else f"ended with exit code {code}"
            _tell(f"the process that sends {self.output.parent.name} to trackers {how}: see {self.output}")


def wait(every: Sequence[Beside], patience: float = PATIENCE) -> None:
    """For all to send what is left of cells that have ended; kills those that take longer, and says so."""
    began, said, left = time.monotonic(), False, list(every)
    try:
        for one in left:
            one.close()
        while (left := [one for one in left if not one.look()]) and time.monotonic() < began + patience:
            if not said and time.monotonic() > began + QUIET_SECONDS:
                progress(
                    f"waiting for trackers of {len(left)} cells; Ctrl-C: send the rest with `bench track`"
                )
                said = True
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        pass  # the user insists; what is told below names the cells
    for one in every:
        one.tell_end()
    for one in left:
        one.process.kill()


def _tell(text: str) -> None:
    if text not in _told:
        _told.add(text)
        caution(text)
