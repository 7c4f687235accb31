"""Whether something was killed for want of main memory, by the kernel's count or by SLURM's words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from bench.run.store import CellDir
from bench.run.work import work_in

CGROUP = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
# slurmstepd's words: by the cgroup's event, and by the accounting plugin's OverMemoryKill
WORDS = re.compile(
    r"oom[-_ ]kill|out[- ]of[- ]memory|exceeded (job|step)? ?memory limit|memory limit.*being killed",
    re.IGNORECASE,
)


def kills() -> int:
    """How many processes of this one's cgroup were killed for memory so far; 0 where it is not counted."""
    if not MEMBERSHIP.is_file():
        return 0
    for line in MEMBERSHIP.read_text().splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers == "":
            counted = CGROUP / place.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            counted = CGROUP / "memory" / place.lstrip("/") / "memory.oom_control"
        else:
            continue
        if counted.is_file() and (found := re.search(r"^oom_kill (\d+)", counted.read_text(), re.MULTILINE)):
            return int(found[1])
    return 0


def told_in(logs: Iterable[Path]) -> str | None:
    """The line in which SLURM says that it killed a job for its memory; None if there is none."""
    for log in logs:
        for line in reversed(log.read_text(encoding="utf-8", errors="replace").splitlines()[-200:]):
            if "slurmstepd" in line and WORDS.search(line):
                return line.strip()
    return None


def story(cell: CellDir, gpu: bool = False, words: str | None = None) -> str:
    """What to say of a cell that was killed for its memory."""
    said = "" if words is None else f" SLURM: {words}."
    advice = work_in(cell).memory_advice(gpu)
    return f"out of main memory: killed at the job's limit.{said} {advice} More for a retry: --with mem=…"
