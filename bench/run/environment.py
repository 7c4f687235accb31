"""What a cell ran on: versions, git commit, hardware, command line; and how much memory it took."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

import bench
from bench import __version__
from bench.experiment.settings import SCHEMA_VERSION

if TYPE_CHECKING:
    import torch

SNAPSHOT = "snapshot.json"  # at the top of a copy of the code (bench.run.slurm.snapshot)
PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "numpy", "safetensors", "pillow")


def environment(device: torch.device, processes: int, command: str) -> dict[str, Any]:
    """The contents of env.json."""
    import torch

    return {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "version": __version__,
        "python": sys.version.split()[0],
        "packages": _versions(),
        "git": git_state(Path(bench.__file__).parent.parent),
        "host": platform.node(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "device": str(device),
        "processes": processes,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "torch_threads": torch.get_num_threads(),
    }


@cache
def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in PACKAGES}


def git_state(directory: Path) -> dict[str, Any] | None:
    """Commit and whether files differ from it; None outside a repository or without git.

    A sweep's copy of the code says itself what it was copied from.
    """
    copied_from = directory / SNAPSHOT
    if copied_from.is_file():
        return json.loads(copied_from.read_text())["git"]
    try:
        commit = _git(directory, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(directory, "status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):  # no git, or an installed wheel
        return None


def _git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()


def reset_peak_memory(device: torch.device) -> None:
    """Begin a new high-water mark of a GPU's memory; that of a process cannot be lowered."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """High-water mark in bytes: allocated GPU memory since its reset, or resident memory of the process."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
