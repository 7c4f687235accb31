"""Who works on a cell, or is going to: `claim.json`, made by exclusive create.

A claim stands from the moment a run or a submission takes a cell until the cell has ended, also while it
waits in a queue. The lock of `bench.run.store` is held by the process that writes; the claim says that
somebody will come. An owner that died leaves its claim behind: whoever finds it may take the cell over, one
at a time, under the cell's lock.

A claim of a process on this machine lives as long as the process; on another machine its owner renews it, and
it expires after `LEASE` seconds without. A claim of a SLURM submission names the submission, which knows the
job; the job itself checks that the claim is still its own before it starts.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from pydantic import ValidationError

from bench.base.errors import Damaged
from bench.base.files import write_atomically
from bench.base.lazy import psutil
from bench.base.strict import Strict
from bench.run.store import WorkDir

FILE = "claim.json"
LEASE = 180.0  # seconds that a claim lives without being renewed
RENEWED_EVERY = 30.0


class Claim(Strict):
    """claim.json. token: unique; of a SLURM submission its name. born: when the owner's process began."""

    token: str
    host: str
    pid: int
    born: float
    submission: bool = False


# Whether a cell's claim still holds: from the cell, its claim, and the seconds since it was renewed.
Alive = Callable[[WorkDir, Claim, float], bool]


def of_this_process(token: str | None = None) -> Claim:
    """The claim of this process. token: the name of a SLURM submission; None for work that it does itself."""
    process, host = psutil.Process(), socket.gethostname()
    born = process.create_time()
    own = f"{host}-{process.pid}-{born:.0f}"
    return Claim(token=token or own, host=host, pid=process.pid, born=born, submission=token is not None)


def owner_lives(claim: Claim, age: float) -> bool:
    """Whether the process that made the claim still runs; on other machines, whether it renewed it lately."""
    if claim.host != socket.gethostname():
        return age < LEASE
    try:
        return abs(psutil.Process(claim.pid).create_time() - claim.born) < 1.0
    except psutil.NoSuchProcess:
        return False


def read(directory: WorkDir) -> tuple[Claim, float] | None:
    """The claim of a cell and the seconds since it was renewed; None if nobody claims it."""
    path = directory.path / FILE
    try:
        data, age = path.read_bytes(), time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    try:
        return Claim.model_validate_json(data), age
    except ValidationError as error:
        raise Damaged(path, "no claim. If nothing runs or waits for this cell, it can go") from error


def take(directory: WorkDir, mine: Claim, alive: Alive) -> Claim | None:
    """None if the cell is now mine, else the claim of who has it. Raises CellInUse where one is writing."""
    if _create(directory, mine):
        return None
    held = read(directory)
    if held is not None and held[0] != mine and alive(directory, *held):
        return held[0]
    with directory.locked():  # one at a time takes over from the dead
        held = read(directory)
        if held is not None:
            if held[0] == mine:
                return None
            if alive(directory, *held):
                return held[0]
            (directory.path / FILE).unlink()
        if _create(directory, mine):
            return None
    held = read(directory)
    return mine if held is None else held[0]  # someone was faster, and may have ended already


def release(directory: WorkDir, token: str) -> None:
    """Give the cell free, if the claim is the token's."""
    held = read(directory)
    if held is not None and held[0].token == token:
        (directory.path / FILE).unlink(missing_ok=True)


class Lease:
    """The claims of this process on what it is working through."""

    def __init__(self, directories: Iterable[WorkDir]) -> None:
        self.token = of_this_process().token
        self.directories = {directory.path: directory for directory in directories}
        self._renewed = time.monotonic()

    def renew(self) -> None:
        """Say that the owner lives; to be called often."""
        if time.monotonic() - self._renewed < RENEWED_EVERY:
            return
        self._renewed = time.monotonic()
        for path in list(self.directories):
            with suppress(FileNotFoundError):  # given free by a command of somebody else
                os.utime(path / FILE)

    @contextmanager
    def renewing(self) -> Iterator[None]:
        """Within the context another thread renews, because this one works."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(RENEWED_EVERY):
                self.renew()

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def release(self, directory: WorkDir) -> None:
        """Give up the claim of work that has ended."""
        release(self.directories.pop(directory.path), self.token)

    def end(self) -> None:
        """Give all free that are left."""
        for directory in self.directories.values():
            release(directory, self.token)


def _create(directory: WorkDir, claim: Claim) -> bool:
    """Put the whole file in place if there is none: a link fails where the name is taken, on NFS too."""
    path = directory.path / FILE
    temporary = path.with_name(f"{FILE}.{claim.host}.{os.getpid()}")
    write_atomically(temporary, claim.model_dump_json() + "\n")
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True
