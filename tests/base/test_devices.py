"""Machines with GPUs that torch cannot use, made up: what torch and nvidia-smi say is the test's."""

import errno
from pathlib import Path

import pytest
import torch

from bench.base import devices
from bench.base.errors import BenchError

V100 = "Tesla V100-SXM2-32GB"
CUDA_13 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
CUDA_12_6 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]


class Machine:
    """What it says of itself; without more, no GPU and a build for CUDA 13."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.monkeypatch, self.folder = monkeypatch, folder
        for name in (devices.VARIABLE, devices.PROMISED, devices.VISIBLE):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PATH", str(folder))
        monkeypatch.setattr(devices, "DEVICES", folder)
        self.torch(cuda="13.0")

    def torch(self, *capabilities: tuple[int, int], cuda: str | None, built: list[str] = CUDA_13) -> None:
        """GPUs that torch sees, the CUDA that it is built for, and its kernels."""
        said = {
            "is_available": lambda: bool(capabilities),
            "get_device_capability": lambda n: capabilities[n],
            "get_device_name": lambda n: V100,
            "get_arch_list": lambda: built,
        }
        for name, function in said.items():
            self.monkeypatch.setattr(torch.cuda, name, function)
        self.monkeypatch.setattr(devices, "count", lambda: len(capabilities))
        self.monkeypatch.setattr(torch.version, "cuda", cuda)
        self.monkeypatch.setattr(devices.torch, "__version__", "2.13.0")

    def driver(self, version: str) -> None:
        """nvidia-smi shows one V100 with it."""
        file = self.folder / "nvidia-smi"
        file.write_text(
            f'#!/bin/sh\ncase "$1" in *driver*) echo "{V100}, {version}";; *) echo "{V100}";; esac\n'
        )
        file.chmod(0o755)

    def refusal(self) -> str:
        """What the process ends with instead of computing."""
        with pytest.raises(BenchError) as found:
            devices.kind()
        assert devices.ON_THE_CPU in str(found.value)
        return str(found.value)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path)


def test_a_machine_without_a_gpu_computes_on_the_cpu(machine: Machine) -> None:
    assert devices.kind() == "cpu"


@pytest.mark.silent
def test_a_driver_that_is_too_old_never_ends_on_the_cpu_unasked(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.driver("470.82.01")
    text = machine.refusal()
    assert f"({V100}, driver 470.82.01): CUDA 13.0 wants 580 or newer" in text
    assert "make clean venv TORCH_INDEX=https://download.pytorch.org/whl/cu126" in text
    monkeypatch.setenv(devices.VARIABLE, "cpu")
    assert devices.kind() == "cpu"


@pytest.mark.silent
def test_a_job_that_asked_for_gpus_never_ends_on_the_cpu(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nvidia-smi is not there, or the site hides GPUs by an empty variable."""
    monkeypatch.setenv(devices.PROMISED, "2")
    monkeypatch.setenv(devices.VISIBLE, "")
    assert (
        "this job asked for 2 GPUs, and there is none: there is no nvidia-smi, and torch" in machine.refusal()
    )
    machine.torch((9, 0), cuda="13.0")
    assert "this job asked for 2 GPUs, and torch sees 1" in machine.refusal()
    machine.torch((9, 0), (9, 0), cuda="13.0")
    assert devices.kind() == "cuda"
    monkeypatch.setenv(devices.VARIABLE, "cpu")
    assert devices.kind() == "cpu"


def test_a_build_of_torch_without_cuda_is_named_beside_a_gpu(machine: Machine) -> None:
    machine.torch(cuda=None)
    machine.driver("580.65")
    text = machine.refusal()
    assert f"torch 2.13.0 is built without CUDA ({V100}, driver 580.65)" in text
    assert text.endswith(devices.ON_THE_CPU)


def test_a_gpu_behind_a_good_driver_that_torch_does_not_see_names_what_may_hide_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.driver("580.65")
    assert "does its driver work (nvidia-smi)?" in machine.refusal()
    monkeypatch.setenv(devices.VISIBLE, "7")
    assert "does CUDA_VISIBLE_DEVICES=7 hide it?" in machine.refusal()


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_gpus_that_are_hidden_on_purpose_are_left_alone_unless_asked_for(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    machine.driver("470.82")
    monkeypatch.setenv(devices.VISIBLE, hidden)
    assert devices.kind() == "cpu"
    monkeypatch.setenv(devices.VARIABLE, "cuda")
    assert "--device cuda, and " in machine.refusal()


@pytest.mark.silent
def test_a_card_that_torch_has_no_kernels_for_is_refused_with_what_to_type(machine: Machine) -> None:
    machine.torch((9, 0), (7, 0), cuda="13.0")
    text = machine.refusal()
    assert f"GPU 1, {V100}, has compute capability 7.0, and torch 2.13.0 has kernels for 7.5, 8.0" in text
    assert "older GPUs:\n  make clean venv TORCH_INDEX=https://download.pytorch.org/whl/cu126" in text


@pytest.mark.parametrize(
    ("able", "built", "runs"),
    [
        ((7, 0), CUDA_12_6, True),
        ((8, 9), CUDA_12_6, True),  # by 8.6's
        ((10, 0), CUDA_12_6, False),
        ((7, 0), CUDA_13, False),
        ((7, 5), CUDA_13, True),
        ((12, 1), CUDA_13, True),
        ((13, 0), CUDA_13, True),  # by the PTX of 12.0
        ((9, 0), ["sm_90a"], True),
        ((9, 4), ["gfx942"], True),  # AMD's: nothing is known against it
    ],
)
def test_kernels_run_within_a_major_version_and_ptx_on_what_is_newer(
    machine: Machine, able: tuple[int, int], built: list[str], runs: bool
) -> None:
    machine.torch(able, cuda="12.6", built=built)
    assert (devices.without_kernels(0) is None) is runs
    if able == (10, 0):
        assert "for newer GPUs:\n  make clean venv" in str(devices.without_kernels(0))


def test_a_first_kernel_that_fails_is_told_by_its_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, device: str) -> None:
        raise RuntimeError(f"CUDA error: no kernel image on {device}\nFor debugging consider …")

    monkeypatch.setattr(devices.torch, "full", full)
    assert devices.tried(3) == "CUDA error: no kernel image on cuda:3"
    monkeypatch.setattr(devices.torch, "full", lambda *_, device: torch.ones(1))
    assert devices.tried(0) is None


def test_an_unknown_device_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VARIABLE, "gpu")
    with pytest.raises(BenchError, match=r"BENCH_DEVICE: 'gpu' is no device. Known: auto, cpu, cuda"):
        devices.kind()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "there is no nvidia-smi"),
        ("echo Driver/library version mismatch\nexit 18", "it said 'Driver/library version mismatch'"),
        ("exec /bin/sleep 60", "did not answer in 0.3 seconds"),
        ("echo", "it said 'nothing' (exit code 0)"),
    ],
)
def test_a_driver_that_is_there_and_does_not_work_never_ends_on_the_cpu_unasked(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, script: str | None, said: str
) -> None:
    """A container without its GPUs' tools, a driver that was updated, one that starts slowly."""
    monkeypatch.setattr(devices, "SECONDS", 0.3)
    if script is not None:
        file = machine.folder / "nvidia-smi"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    assert devices.kind() == "cpu"  # nothing says that there is a GPU
    (machine.folder / "nvidia0").touch()
    text = machine.refusal()
    assert said in text and "apptainer --nv" in text
    monkeypatch.setenv(devices.VARIABLE, "cpu")
    assert devices.kind() == "cpu"


def test_a_device_that_may_not_be_opened_is_another_jobs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SLURM leaves those that a job did not ask for: there, and withheld."""

    def withheld(path: Path, flags: int) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    for name in ("nvidia0", "nvidiactl"):
        (machine.folder / name).touch()
    monkeypatch.setattr(devices.os, "open", withheld)
    assert devices.nvidia_files() == []
    assert devices.kind() == "cpu"


def test_of_one_card_without_kernels_the_others_are_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.torch((8, 9), (6, 1), (8, 6), cuda="13.0")
    assert "Or use the others alone: CUDA_VISIBLE_DEVICES=0,2" in machine.refusal()
    monkeypatch.setenv(devices.VISIBLE, "GPU-8a,GPU-5b,GPU-1c")
    assert "Or use the others alone: CUDA_VISIBLE_DEVICES=GPU-8a,GPU-1c" in machine.refusal()
    machine.torch((6, 1), cuda="13.0")
    assert "Or use" not in machine.refusal()
