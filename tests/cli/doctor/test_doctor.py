import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from rich.console import Console

from bench.base import devices
from bench.base.errors import BenchError
from bench.cli.doctor import machine, packages, report, runnable
from bench.cli.doctor.lines import Finding, Mark, examine
from bench.data import sources
from bench.experiment import ingredients
from bench.models.sizes import ARCHITECTURES
from tests.support.running import ROOT, command
from tests.support.watched import watched

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


def places(home: Path) -> dict[str, str]:
    """Variables by which weights are looked for below a folder."""
    return {"HF_HOME": str(home), "BENCH_CACHE": str(home / "bench")}


def doctor(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | places(home) | more
    return subprocess.run(
        command("doctor", *arguments), env=environment, capture_output=True, text=True, cwd=ROOT, check=False
    )


def printed(
    model: str | None = None, reward: str | None = None, methods: str | None = None
) -> tuple[int, str]:
    """Exit code and output of a doctor in this process."""
    console = Console(width=80)
    with console.capture() as captured:
        code = report.run(console, model, reward, methods, ())
    return code, captured.get()


@pytest.mark.slow
@pytest.mark.parametrize("columns", ["60", "80"])
def test_on_a_bare_machine_it_ends_well_in_the_width_and_neither_loads_nor_asks_for_anything(
    tmp_path: Path, columns: str
) -> None:
    variables = places(tmp_path) | {"HF_TOKEN": "hf_secret", "HF_ENDPOINT": "http://127.0.0.1:9"}
    online = {"HF_HUB_OFFLINE": "0"}
    done, record = watched(tmp_path / "record.json", "doctor", COLUMNS=columns, **variables, **online)
    assert done.returncode == 0, done.stderr
    assert record.heavy() <= {"torch", "numpy", "huggingface_hub", "PIL"}  # no library of networks
    assert not [path for path in record.opened if path.endswith(WEIGHTS)]
    assert record.connected == record.waits == []
    assert all("nvidia-smi" in command for command in record.started)
    assert "Traceback" not in done.stdout + done.stderr
    assert "could not be examined" not in done.stdout
    commands = "  python -m bench fetch "
    wide = [line for line in done.stdout.splitlines() if len(line) > int(columns)]
    assert [line for line in wide if not line.startswith(commands)] == []
    assert "hf_secret" not in done.stdout + done.stderr
    assert "in HF_TOKEN" in done.stdout
    assert "http://127.0.0.1:9" in done.stdout
    for name in ("sd14", "sdxl", "tiny", "clip", "jpeg", "hpdv2"):
        assert f" {name} " in done.stdout


@pytest.mark.slow
def test_a_model_that_is_not_here_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(runnable, "room", lambda: runnable.Room(gpu=False, gib=16.0))
    code, text = printed("sd14", "clip,jpeg", "ddpo")
    assert code == 0
    assert "python -m bench fetch --model sd14 --reward clip,jpeg" in text
    assert "others: ddpo" in text
    assert "gradients" not in text


@pytest.mark.slow
@pytest.mark.parametrize("names", [("sd41", None, None), (None, "clop", None), (None, None, "dppo")])
def test_an_unknown_name_is_one_message(names: tuple[str | None, ...]) -> None:
    with pytest.raises(BenchError, match="unknown"):
        printed(*names)


def test_a_broken_torch_is_essential_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (line,) = machine.torch_and_gpus()
    assert line.mark is Mark.BAD
    assert "cannot be imported" in line.text


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("--model", "tiny")])
@pytest.mark.parametrize("fault", ["OSError('libcudart.so.12: cannot open')", "ImportError('no libgomp')"])
def test_with_a_torch_that_cannot_be_loaded_the_rest_is_still_examined(
    tmp_path: Path, fault: str, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(f"raise {fault}\n")
    done = doctor(tmp_path, *arguments, COLUMNS="100", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert "Traceback" not in done.stdout + done.stderr
    assert "cannot be imported" in done.stdout
    assert "hub cache" in done.stdout
    assert done.returncode in (1, 2)


@pytest.mark.slow
def test_lost_embedded_weights_end_in_exit_code_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sources, "EMBEDDED", tmp_path)
    code, text = printed()
    assert code == 1
    assert "The demo cannot run here" in text
    assert "no weights at" in text


@pytest.mark.slow
def test_a_full_disk_ends_in_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*anything: object) -> None:
        raise BenchError("only 3 MiB free")

    monkeypatch.setattr("bench.run.launch.check_disk", full)
    code, text = printed()
    assert code == 1
    assert "only 3 MiB free" in text


def test_an_examination_that_fails_is_a_line() -> None:
    def fails() -> list[Finding]:
        raise ZeroDivisionError("no")

    (line,) = examine("thing", fails)
    assert line.text == "could not be examined: ZeroDivisionError: no"


def test_packages_missing_or_out_of_range_say_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [Requirement("no-such-thing>=2"), Requirement("rich>=999"), Requirement("pydantic>=2")]
    monkeypatch.setattr(packages, "requirements", lambda: wanted)
    lines = {line.name: line for line in packages.core()}
    assert lines["no-such-thing"].mark is Mark.BAD
    assert "pip install 'no-such-thing>=2'" in lines["no-such-thing"].text
    assert lines["rich"].mark is Mark.NOTE
    assert "pydantic" in lines["in range"].text


def test_every_package_that_rewards_lack_stands_by_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packages, "installed", lambda name: False)
    scorers, ocr = (line.text for line in packages.scorers() if line.name == "missing")
    if scorers.startswith("rapidocr"):
        scorers, ocr = ocr, scorers
    assert "hpsv2" in scorers and "vbench" in scorers and "make scorers" in scorers
    assert ocr.startswith("rapidocr, onnxruntime;") and "\npip install 'rapidocr" in ocr


def test_the_ranges_are_the_projects_own() -> None:
    assert {"torch", "diffusers", "rich"} <= {requirement.name for requirement in packages.requirements()}
    assert packages.tested_versions()["torch"].startswith("2.")


def test_a_containers_limits_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    (tmp_path / "memory.current").write_text(f"{2**29}\n")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    monkeypatch.setattr(machine, "_own_cgroup", lambda: tmp_path)
    assert machine.available_memory() == 2**29
    (line,) = machine.memory()
    assert line.text.startswith("0.5 of 1.0 GiB free (the limit of this container or job)")
    assert line.mark is Mark.BAD
    assert "limited to the time of 0.5" in next(machine.processor()).text
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.available_memory() > 2**29


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_are_those_of_the_shipped_architectures(name: str) -> None:
    from bench.models.random_weights import architecture, empty_parts

    parts = empty_parts(architecture(name))
    counted = {part: sum(p.numel() for p in module.parameters()) for part, module in parts.items()}
    known = ARCHITECTURES[name]
    network = "unet" if "unet" in counted else "transformer"
    assert (counted[network], counted["vae"]) == (known.network, known.vae)
    assert sum(counted.values()) == known.parameters


def test_every_shipped_model_from_the_hub_has_a_known_size() -> None:
    for name in ("sd14", "sd15", "sd21-base", "sd21", "sdxl", "sd35", "sd35-large", "flux1", "wan21-1.3b"):
        assert ingredients.model_ingredient(name).gigabytes, name


class Gpu:
    """What torch says of one V100 that it sees."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, able: tuple[int, int], kernel: str | None) -> None:
        for name, said in {
            "is_available": True,
            "get_device_name": "Tesla V100",
            "get_device_capability": able,
            "get_arch_list": ["sm_75", "sm_90"],
            "mem_get_info": (2**30, 2**31),
        }.items():
            monkeypatch.setattr(f"torch.cuda.{name}", lambda *_, said=said: said)
        # By emulation every card has bfloat16.
        monkeypatch.setattr(
            "torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation
        )
        monkeypatch.setattr(devices, "count", lambda: 1)
        monkeypatch.setattr(devices, "tried", lambda n: kernel)
        monkeypatch.setattr(devices, "nvidia_smi", lambda *_: (["550.1"], ""))


@pytest.mark.parametrize(
    ("able", "kernel", "mark", "told"),
    [
        ((7, 0), None, Mark.BAD, "TORCH_INDEX=https://download.pytorch.org/whl/cu126"),
        ((7, 5), "CUDA error: unknown", Mark.BAD, "a first kernel on it failed: CUDA error: unknown"),
        ((7, 5), None, Mark.OK, "1.0 of 2.0 GiB free, driver 550.1, bf16 no; a first kernel ran"),
    ],
)
def test_of_a_gpu_it_is_said_whether_it_computes(
    able: tuple[int, int], kernel: str | None, mark: Mark, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gpu(monkeypatch, able, kernel)
    line = next(line for line in machine.torch_and_gpus() if line.name == "GPU 0")
    assert line.mark is mark
    assert told in line.text


def test_a_gpu_that_torch_does_not_see_is_essential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr(devices, "nvidia_smi", lambda *_: (["Tesla V100, 470.1"], ""))
    line = next(line for line in machine.torch_and_gpus() if line.name == "GPU")
    assert line.mark is Mark.BAD
    assert "CUDA 13.0 wants 580 or newer" in line.text


def test_a_cache_on_a_file_system_without_locks_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def flock(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    lines = [line for line in machine.disks(tmp_path) if "locks no files" in line.text]
    assert [line.name for line in lines] == ["results", "hub cache", "URL cache"]
