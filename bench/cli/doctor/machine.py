"""Python, torch, GPUs, cores, memory, disks, and the variables that decide where weights are."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench.base import devices
from bench.base.errors import BenchError
from bench.base.units import GIB
from bench.cli.doctor.lines import Finding, Mark

DEMO_CELLS = 7
DEMO_MEMORY = 1.5  # GiB of main memory that a cell of the demo wants at least
CGROUP = Path("/sys/fs/cgroup")
HALF_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")  # of /proc/cpuinfo, x86 and ARM
VARIABLES = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "BENCH_CACHE",
)
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def python() -> Iterator[Finding]:
    """The version of Python, and whether it is new enough."""
    old = sys.version_info < (3, 11)
    text = f"{platform.python_version()}, {sys.executable}"
    yield Finding("Python", text + ("; 3.11 or newer is needed" if old else ""), Mark.BAD if old else Mark.OK)


def torch_and_gpus() -> Iterator[Finding]:
    """Whether torch loads, for what it was built, and every GPU that it sees."""
    try:
        import torch
    except Exception as error:  # a broken installation may raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        yield Finding("torch", f"cannot be imported: {reason}. Install it again: make venv", Mark.BAD)
        return
    cuda = torch.version.cuda
    yield Finding(
        "torch", f"{torch.__version__}, " + (f"built for CUDA {cuda}" if cuda else "built for CPU alone")
    )
    if not torch.cuda.is_available():
        here = devices.nvidia_files() or devices.nvidia_smi("name")[0]
        without = "none: everything runs on the CPU"
        yield Finding("GPU", devices.unusable(), Mark.BAD) if here else Finding("GPU", without)
        return
    driver, _ = devices.nvidia_smi("driver_version")
    for n in range(devices.count()):
        yield _gpu(n, f", driver {driver[0]}" if driver else "")


def _gpu(n: int, driver: str) -> Finding:
    """What it is, and whether it computes: one tiny kernel is run on it."""
    import torch

    if problem := devices.without_kernels(n):
        return Finding(f"GPU {n}", problem, Mark.BAD)
    if said := devices.tried(n):
        name = torch.cuda.get_device_name(n)
        return Finding(f"GPU {n}", f"{name}{driver}: a first kernel on it failed: {said}", Mark.BAD)
    free, total = torch.cuda.mem_get_info(n)
    return Finding(
        f"GPU {n}",
        f"{torch.cuda.get_device_name(n)}, {free / GIB:.1f} of {total / GIB:.1f} GiB free{driver}, bf16 "
        f"{'yes' if torch.cuda.is_bf16_supported(including_emulation=False) else 'no'}; a first kernel ran",
    )


def processor() -> Iterator[Finding]:
    """Cores that this process may use, and half precision."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cpus()
    limit = f", limited to the time of {quota:.3g}" if quota is not None and quota < allowed else ""
    yield Finding("CPU", f"{allowed} of {os.cpu_count()} cores for this process{limit}; {_processor_name()}")
    flags = _cpu_flags()
    if flags:
        fast = [flag for flag in HALF_FLAGS if flag in flags]
        text = f"in hardware ({fast[0]})" if fast else "emulated: it saves memory, not time"
        yield Finding("CPU bf16", text)


def memory() -> Iterator[Finding]:
    """Main memory, with the limit of a container or a SLURM job."""
    free, total = available_memory(), psutil.virtual_memory().total
    limit = _cgroup_memory()
    text = f"{free / GIB:.1f} of {min(total, limit or total) / GIB:.1f} GiB free"
    if limit is not None and limit < total:
        text += " (the limit of this container or job)"
    low = free < DEMO_MEMORY * GIB
    need = f"; the demo wants {DEMO_MEMORY} GiB" if low else ""
    yield Finding("memory", text + need, Mark.BAD if low else Mark.OK)


def available_memory() -> int:
    """Bytes of main memory that this process may still take."""
    free, limit = psutil.virtual_memory().available, _cgroup_memory()
    if limit is None:
        return free
    used = _cgroup_number("memory.current") or 0
    return max(0, min(free, limit - used))


def _cgroup_memory() -> int | None:
    return _cgroup_number("memory.max")


def _cgroup_number(name: str) -> int | None:
    text = _read(_own_cgroup() / name).strip()
    return int(text) if text.isdigit() else None


def _cgroup_cpus() -> float | None:
    """Cores' worth of time in a container; None: no limit."""
    quota, _, period = _read(_own_cgroup() / "cpu.max").strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _own_cgroup() -> Path:
    """This process's directory of cgroups version 2 (of version 1 no limit is seen)."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        if line.startswith("0::"):
            return CGROUP / line.removeprefix("0::").strip().lstrip("/")
    return CGROUP


def _processor_name() -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cpu_flags() -> frozenset[str]:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def _read(file: Path) -> str:
    """A file of the kernel's, or nothing where this system has none."""
    try:
        return file.read_text()
    except OSError:
        return ""


def disks(results: Path) -> Iterator[Finding]:
    """Room for results and for weights."""
    from huggingface_hub import constants

    from bench.base.locks import check_locks
    from bench.data.cache import cache_directory
    from bench.data.hub import free_gigabytes
    from bench.run.launch import check_disk
    from bench.run.store import ResultsDir

    try:
        check_disk(ResultsDir(results), DEMO_CELLS)
        yield Finding("results", f"{free_gigabytes(results):.1f} GB free at {results.absolute()}")
    except BenchError as error:
        yield Finding("results", str(error), Mark.BAD)
    for name, place in (("hub cache", Path(constants.HF_HUB_CACHE)), ("URL cache", cache_directory())):
        try:
            check_locks(place)
        except (BenchError, OSError) as error:
            yield Finding(name, str(error), Mark.NOTE)
        yield Finding(name, f"{free_gigabytes(place):.1f} GB free at {tilde(place)}")


def variables() -> Iterator[Finding]:
    """What is set of the hub's variables and ours. Never the token itself."""
    from huggingface_hub import get_token

    for name in VARIABLES:
        if value := os.environ.get(name):
            yield Finding(name, value, Mark.NOTE if "OFFLINE" in name else Mark.OK)
    unset = [name for name in VARIABLES if not os.environ.get(name)]
    yield Finding("not set", ", ".join(unset) if unset else "none")
    named = [name for name in TOKENS if os.environ.get(name)]
    if named:
        yield Finding("hub token", f"in {named[0]}")
    elif get_token():
        yield Finding("hub token", "stored by hf auth login")
    else:
        yield Finding("hub token", "none; only repositories with a licence to accept want one: hf auth login")


def tilde(path: Path) -> str:
    """The path with ~ for the home directory."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
