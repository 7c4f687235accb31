"""Kill a profile with SIGKILL at every one of its writes, or at random moments, and run it again: same sums?

    python -m tests.measure.gradients.kill_everywhere PROFILE_DIRECTORY DRAWS writes|moments

A script of its own, because it forks: `tests.support.kill_everywhere`.
"""

import gc
import io
import os
import random
import shutil
import signal
import sys
import time
from itertools import count
from pathlib import Path

from bench.measure.gradients import worker
from bench.measure.gradients.store import ProbeDir
from tests.measure.gradients.running import copied, sums
from tests.support.kill_everywhere import Killer


def start(directory: ProbeDir, draws: int, killer: Killer | None = None) -> int:
    """Run it in a fork; the child's id."""
    child = os.fork()
    if child == 0:
        if killer is not None:
            killer.install(worker)
        sys.stdout = io.StringIO()
        os._exit(int(worker.run_probe(directory, None, draws, None)))
    return child


def ended(child: int) -> int:
    """Wait status."""
    return os.waitpid(child, 0)[1]


def at_every_write(planned: ProbeDir, draws: int, wanted: object) -> int:
    """Every write is killed once; how many there were."""
    at, died = 0, True
    while died:
        at += 1
        directory = copied(planned, planned.path.parent / f"killed-{at}")
        died = os.WIFSIGNALED(ended(start(directory, draws, Killer(at))))
        assert ended(start(directory, draws)) == 0
        assert sums(directory) == wanted, f"killed at instant {at}: sums differ"
        shutil.rmtree(directory.path)
    return at - 1


def at_random_moments(planned: ProbeDir, draws: int, wanted: object) -> int:
    """One profile is killed again and again, until it gets to its end; how often."""
    directory, rng = copied(planned, planned.path.parent / "killed"), random.Random(5)
    for kills in count():
        child = start(directory, draws)
        deadline = time.monotonic() + rng.uniform(0.1, 0.5 + 0.1 * kills)  # it ends on any machine
        while time.monotonic() < deadline:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                assert status == 0
                assert sums(directory) == wanted, "sums differ"
                return kills
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        ended(child)
    raise AssertionError  # count() does not end


def main(planned: Path, draws: int, when: str) -> None:
    """planned: a profile's directory with a config.yaml and nothing measured yet."""
    worker.SAVE_SECONDS = 0.0 if when == "writes" else 0.05
    whole = copied(ProbeDir(planned), planned.parent / "whole")
    # In this process: what it imports and remembers, no copy need do again.
    assert worker.run_probe(whole, None, draws, None) == 0
    gc.freeze()  # else every fork begins with a second of looking through torch's modules
    attack = at_every_write if when == "writes" else at_random_moments
    print(f"killed {attack(ProbeDir(planned), draws, sums(whole))} times")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
