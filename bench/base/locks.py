"""Locks on files that die with their process, where the file system has them."""

from __future__ import annotations

import fcntl
import tempfile
from pathlib import Path
from typing import IO, Any

from bench.base.errors import BenchError
from bench.base.files import existing


def lock(stream: IO[Any], path: Path, *, wait: bool = False) -> bool:
    """Lock an open file for this process alone; False if another process has it.

    path: for messages. wait: until the other gives it back. Raises BenchError where the file system has no
    such locks.
    """
    try:
        fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise BenchError(
            f"{path}: this file system locks no files ({error.strerror}), so two processes could write the "
            "same results. Lustre has to be mounted with -o flock, NFS with lockd; or choose a directory on "
            "another disk (--out for results, BENCH_CACHE for weights)"
        ) from error
    return True


def check_locks(place: Path) -> None:
    """Raise BenchError where files at a place, or in the nearest directory above that exists, have no locks.

    Leaves nothing behind.
    """
    with tempfile.TemporaryFile(dir=existing(place)) as stream:
        lock(stream, place)
