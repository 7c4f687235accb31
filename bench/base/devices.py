"""Which device a process computes on: what was asked for, what the machine has, and what torch can use.

`--device` reaches every process that a command starts as BENCH_DEVICE. Its default, `auto`, takes the GPU
where there is one, and never the CPU in its place: that would take a thousand times as long, and the numbers
would be others than the cell's name promises.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from pathlib import Path
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
SECONDS = 60  # for nvidia-smi: without persistence the driver starts anew for it, GPU by GPU
ON_THE_CPU = "To compute on the CPU all the same: --device cpu"
DEVICES = Path("/dev")
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
        if problem := _too_few(promised) or _unusable_cards():
            raise BenchError(f"{problem}\n{ON_THE_CPU}")
        return "cuda"
    hidden = os.environ.get(VISIBLE, "0").strip() in NONE
    if wanted == "auto" and not promised and (hidden or not (nvidia_files() or nvidia_smi("name")[0])):
        return "cpu"
    if promised:
        why = f"this job asked for {promised} GPUs"
    else:
        why = "--device cuda" if wanted == "cuda" else "this machine has a GPU"
    raise BenchError(f"{why}, and {unusable()}\n{ON_THE_CPU}")


def unusable() -> str:
    """Why torch sees no GPU, and what to do."""
    cuda, (here, said) = torch.version.cuda, nvidia_smi("name", "driver_version")
    name, _, driver = here[0].partition(", ") if here else ("", "", "")
    found = f" ({name}, driver {driver})" if here else ""
    if cuda is None:
        return f"torch {torch.__version__} is built without CUDA{found}. Install a build with it: {NEWEST}"
    if not here and nvidia_files():
        return (
            f"its driver does not work here: {said}. Within a container, is it started with its GPUs (docker "
            "run --gpus all, apptainer --nv)? After an update of the driver, was the machine started anew?"
        )
    if not here:
        return f"there is none: {said}, and torch {torch.__version__} sees none"
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


def count() -> int:
    """How many GPUs this process can use, by CUDA itself: of cards that are cut into parts (MIG) it uses one
    part, where `torch.cuda.device_count` counts the cards."""
    torch.cuda.init()
    return torch._C._cuda_getDeviceCount()


def _too_few(promised: int) -> str | None:
    seen = count()
    return f"this job asked for {promised} GPUs, and torch sees {seen}" if seen < promised else None


def _unusable_cards() -> str | None:
    """What to say of the first card without kernels, and of those that could be used without it."""
    problems = [without_kernels(n) for n in range(count())]
    wrong = next((problem for problem in problems if problem), None)
    if wrong is None or all(problems):
        return wrong
    named = os.environ.get(VISIBLE)
    names = named.split(",") if named else [str(n) for n in range(len(problems))]
    usable = ",".join(name for name, problem in zip(names, problems, strict=False) if problem is None)
    return f"{wrong}\nOr use the others alone: {VISIBLE}={usable}"


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


def nvidia_files() -> list[Path]:
    """NVIDIA's devices that this process may open, as a driver or a container leaves them. Those that a
    scheduler withholds from a job are there, too, but may not be opened."""
    return [file for file in sorted(DEVICES.glob("nvidia[0-9]*")) if _opens(file)]


def _opens(file: Path) -> bool:
    try:
        os.close(os.open(file, os.O_RDWR))
    except OSError as error:  # a driver that does not work may fail in any other way
        return error.errno not in (errno.EPERM, errno.EACCES)
    return True


def nvidia_smi(*fields: str) -> tuple[list[str], str]:
    """Fields of every GPU that the driver knows, with `, ` between them; and where there is none, what
    nvidia-smi said instead, for a message."""
    if shutil.which("nvidia-smi") is None:
        return [], "there is no nvidia-smi"
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return [], f"nvidia-smi did not answer in {SECONDS} seconds"
    except OSError as error:
        return [], f"nvidia-smi cannot be run: {error}"
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode == 0 and lines:
        return lines, ""
    said = " ".join((done.stderr or done.stdout).split()) or "nothing"
    return [], f"nvidia-smi shows no GPU: it said '{said[:200]}' (exit code {done.returncode})"
