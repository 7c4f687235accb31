"""Peak memory of one call, above what was there before it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from bench.run.environment import peak_memory

CLEAR = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")


def peak_of(device: torch.device, call: Callable[[], object]) -> tuple[int, int]:
    """(bytes in use before, most bytes in use during) the call: GPU allocations, or the process's memory.

    On Linux the kernel's high-water mark is reset first; elsewhere it is that of the whole process.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return before, torch.cuda.max_memory_allocated(device)
    _trim()
    before = psutil.Process().memory_info().rss
    if not CLEAR.exists():
        call()
        return before, peak_memory(device)
    CLEAR.write_text("5")  # resets VmHWM: proc(5)
    call()
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return before, int(line.split()[1]) * 1024


def _trim() -> None:
    """Give freed memory back, so that it does not count."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return  # not glibc: the mark may then be a little high
