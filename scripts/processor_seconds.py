"""Processor seconds of a command and of all processes that it starts, also those that outlive their parents.

    python -m scripts.processor_seconds make demo

Linux only. `time` does not see the server of warm starts and its copies, which nobody waits for.
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h: orphans become this process's children


def processor_seconds(
    command: Sequence[str], environment: Mapping[str, str] | None = None, quiet: bool = False
) -> float:
    """Those of the command, once all its processes have ended. quiet: without what it prints.

    Raises subprocess.CalledProcessError if it fails.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = subprocess.DEVNULL if quiet else None
    subprocess.run(command, check=True, env=environment, stdout=output, stderr=output)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Say it on the standard error stream."""
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    started = time.monotonic()
    found = processor_seconds(sys.argv[1:])
    print(f"{found:.1f} processor seconds, {time.monotonic() - started:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
