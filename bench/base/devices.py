"""Which device a process computes on: what was asked for, what the machine has, and what torch can use.

`--device` reaches every process that a command starts as BENCH_DEVICE. Its default, `auto`, takes the GPU
where there is one, and never the CPU in its place: that would take a thousand times as long, and the numbers
would be others than the cell's name promises.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Literal

from bench.base.errors import BenchError
from bench.base.lazy import torch

VARIABLE = "BENCH_DEVICE"
PROMISED = "BENCH_GPUS"  # how many GPUs a job asked for on each machine
VISIBLE = "CUDA_VISIBLE_DEVICES"
NONE = ("", "-1", "NoDevFiles")  # the last is SLURM's word
Wish = Literal["auto", "cpu", "cuda"]
WISHES: tuple[Wish, ...] = ("auto", "cpu", "cuda")
NEWEST, OLDER = "make clean venv", "make clean venv TORCH_INDEX=https://download.pytorch.org/whl/cu126"
ON_THE_CPU = "To compute on the CPU all the same: --device cpu"
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}  # by CUDA's major version, on Linux


def wish(text: str, where: str) -> Wish:
    """`auto`, `cpu` or `cuda`, checked. where: for the message of BenchError."""
    for known in WISHES:
        if text == known:
            return known
    raise BenchError(f"{where}: '{text}' is no device. Known: {', '.join(WISHES)}")


def asked() -> Wish:
    """What `--device` said, here or in the process that started this one. Raises BenchError."""
    return wish(os.environ.get(VARIABLE) or "auto", VARIABLE)


def kind() -> Literal["cpu", "cuda"]:
    """What this process computes on. Imports torch, and asks GPUs what they can do, but runs nothing there.

    Raises BenchError where a GPU was asked for, or promised to the job, or is there, and torch cannot use it.
    A CUDA_VISIBLE_DEVICES that is empty hides all GPUs from `auto`.
    """
    wanted, promised = asked(), int(os.environ.get(PROMISED) or 0)
    if wanted == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        for problem in (_too_few(promised), *map(without_kernels, range(torch.cuda.device_count()))):
            if problem is not None:
                raise BenchError(f"{problem}\n{ON_THE_CPU}")
        return "cuda"
    hidden = os.environ.get(VISIBLE, "0").strip() in NONE
    if wanted == "auto" and not promised and (hidden or not nvidia_smi("name")):
        return "cpu"
    if promised:
        why = f"this job asked for {promised} GPUs"
    else:
        why = "--device cuda" if wanted == "cuda" else "this machine has a GPU"
    raise BenchError(f"{why}, and {unusable()}\n{ON_THE_CPU}")


def unusable() -> str:
    """Why torch sees no GPU, and what to do."""
    cuda, here = torch.version.cuda, nvidia_smi("name", "driver_version")
    name, _, driver = here[0].partition(", ") if here else ("", "", "")
    found = f" ({name}, driver {driver})" if here else ""
    if cuda is None:
        return f"torch {torch.__version__} is built without CUDA{found}. Install a build with it: {NEWEST}"
    if not here:
        return f"there is none: nvidia-smi shows no GPU, and torch {torch.__version__} sees none"
    oldest = OLDEST_DRIVER.get(int(cuda.partition(".")[0]), 0)
    if _major(driver) < oldest:
        return (
            f"its driver is too old for torch {torch.__version__}{found}: CUDA {cuda} wants {oldest} or "
            f"newer. Update the driver, or install the build for older ones:\n  {OLDER}"
        )
    hides = os.environ.get(VISIBLE)
    hint = "does its driver work (nvidia-smi)?" if hides is None else f"does {VISIBLE}={hides} hide it?"
    return f"torch {torch.__version__}, built for CUDA {cuda}, sees none{found}: {hint}"


def _major(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0


def _too_few(promised: int) -> str | None:
    seen = torch.cuda.device_count()
    return f"this job asked for {promised} GPUs, and torch sees {seen}" if seen < promised else None


def without_kernels(n: int) -> str | None:
    """What to say of GPU n where this build of torch has no kernels for it; None where it has.

    A kernel runs on GPUs of its own major version, from its minor version on; one in PTX on all newer ones.
    """
    here = torch.cuda.get_device_capability(n)
    built = [(m[1], (int(m[2]), int(m[3]))) for arch in torch.cuda.get_arch_list() if (m := _cuda(arch))]
    if not built or any(here >= able and (made == "compute" or here[0] == able[0]) for made, able in built):
        return None
    shown = ", ".join(f"{major}.{minor}" for _, (major, minor) in built)
    older = here < min(able for _, able in built)
    return (
        f"GPU {n}, {torch.cuda.get_device_name(n)}, has compute capability {here[0]}.{here[1]}, and torch "
        f"{torch.__version__} has kernels for {shown} alone. Install the build for "
        f"{'older' if older else 'newer'} GPUs:\n  {OLDER if older else NEWEST}"
    )


def _cuda(arch: str) -> re.Match[str] | None:
    """sm_90a or compute_120, in parts; None for other makers' names."""
    return re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", arch)


def tried(n: int) -> str | None:
    """Runs one tiny kernel on GPU n. Returns None, or what CUDA said against it."""
    try:
        found = float(torch.full((2,), 0.5, device=f"cuda:{n}").sum())
    except RuntimeError as error:
        return str(error).partition("\n")[0]
    return None if found == 1.0 else f"a sum came out as {found}"


def nvidia_smi(*fields: str) -> list[str]:
    """Fields of every GPU that the driver knows, with `, ` between them; empty where there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # installed, and no GPU or no permission
        return []
    return done.stdout.splitlines()
