"""Warm starts: a process that has imported everything is copied for each piece of work.

Python takes seconds to import torch, diffusers, transformers and peft. One server, multiprocessing's fork
server, imports them once; a copy of it starts in a fraction of a second and shares its memory. A copy then
does what `python -m bench …` would do: a session, an output file, an environment and a standard input of its
own, so it may die in any way without touching the others.

A GPU's driver does not survive being copied, so where there is one every process starts afresh.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, ForkServerContext
from pathlib import Path
from types import ModuleType

IMPORTS = "bench.run.warm_imports"  # what the server imports
MOST_FILES = 4096  # that may be open
GPU_DEVICES = ("nvidia[0-9]*", "kfd", "dxg")  # in /dev: NVIDIA's, AMD's, Windows' for Linux


_copied = False  # whether this process is a copy, which can be copied itself


def has_gpu() -> bool:
    """Whether the machine has a GPU, found without torch."""
    return any(True for pattern in GPU_DEVICES for _ in Path("/dev").glob(pattern))


def possible() -> bool:
    """Whether processes of this machine can start warm."""
    return "forkserver" in multiprocessing.get_all_start_methods() and not has_gpu()


class WarmProcess:
    """`python -m bench ARGUMENTS` from a warm start; has what launching needs of subprocess.Popen."""

    def __init__(self, arguments: Sequence[str], output: Path, environment: Mapping[str, str]) -> None:
        """output: the file that what it prints is added to. environment: all of it."""
        copies = context()
        read, self.stdin = copies.Pipe(duplex=False)
        self._process = copies.Process(
            target=_run, args=(list(arguments), str(output.absolute()), dict(environment), read)
        )
        with without_script():
            self._process.start()
        read.close()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()


@contextmanager
def without_script() -> Iterator[None]:
    """Within the context, processes of multiprocessing do not import the script that runs here.

    They would, to find what it defines; they need nothing of it, and a script that calls `bench.run` outside
    of `if __name__ == "__main__":` would run again in each.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def worth_it(count: int) -> bool:
    """Whether so many pieces of work are to start warm: one alone gains nothing from a server of its own."""
    return possible() and (count > 1 or _copied)


def context() -> ForkServerContext | ForkContext:
    """What makes processes that start warm."""
    multiprocessing.set_forkserver_preload([IMPORTS])
    return multiprocessing.get_context("fork") if _copied else multiprocessing.get_context("forkserver")


def _run(arguments: list[str], output: str, environment: dict[str, str], stdin: Connection) -> None:
    """In the copy: become the process that a new start would have been."""
    os.setsid()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # as in `bench.run.process`
    os.dup2(stdin.fileno(), 0)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.closerange(3, MOST_FILES)  # such as locks of the process that was copied
    become(arguments, environment)


def become(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """In the copy: do what `python -m bench ARGUMENTS` does in an environment; ends in SystemExit."""
    global _copied
    _copied = True
    os.environ.clear()
    os.environ.update(environment)
    for place in reversed(environment.get("PYTHONPATH", "").split(os.pathsep)):
        if place and place not in sys.path:
            sys.path.insert(0, place)
    sys.argv = ["bench", *arguments]
    runpy.run_module("bench", run_name="__main__", alter_sys=True)
