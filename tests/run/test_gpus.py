"""Several GPUs in one machine, made up: each cell gets its own, as its process sees them."""

import sys
from pathlib import Path

import pytest
from rich.console import Console

from bench.base import devices
from bench.base.errors import BenchError
from bench.run import gpus, launch
from bench.run.experiment import places
from bench.run.gpus import Gpus
from bench.run.process import HowToRun, Outcome
from bench.run.work import Work
from tests.support.running import plan_dots

# Takes a lock for each GPU that it may use, writes them down, and gives the locks back after a while.
CHILD = """
import os, pathlib, time
place, names = pathlib.Path({place!r}), os.environ["CUDA_VISIBLE_DEVICES"].split(",")
for name in names:
    (place / name).touch(exist_ok=False)
time.sleep(0.3)
for name in names:
    (place / name).unlink()
with (place / "seen.txt").open("a") as stream:
    stream.write(",".join(names) + "\\n")
"""


class Silent:
    """Watches nothing."""

    def started(self, work: Work) -> None: ...

    def tick(self) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...

    def stopping(self) -> None: ...


def machine(
    monkeypatch: pytest.MonkeyPatch, count: int, visible: str | None = None, wish: str = "auto"
) -> None:
    """One with so many GPUs that torch can use."""
    monkeypatch.setattr(gpus, "has_gpu", lambda: count > 0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
    monkeypatch.setattr(devices, "count", lambda: count)
    monkeypatch.setattr(devices, "without_kernels", lambda n: None)
    monkeypatch.setattr(devices, "nvidia_smi", lambda *_: ([], ""))
    monkeypatch.setenv(devices.VARIABLE, wish)
    monkeypatch.delenv(devices.VISIBLE, raising=False)
    if visible is not None:
        monkeypatch.setenv(devices.VISIBLE, visible)


@pytest.mark.slow
@pytest.mark.silent
@pytest.mark.parametrize(("processes", "each"), [(1, 1), (2, 2)])
def test_no_gpu_is_two_cells_at_a_time_and_each_gets_as_many_as_it_has_processes(
    processes: int, each: int, tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    todo = plan_dots(tmp_path / "out", seeds="0,1,2,3,4,5")
    child = [sys.executable, "-c", CHILD.format(place=str(tmp_path))]
    monkeypatch.setattr(HowToRun, "command", lambda self, work: child)
    monkeypatch.setattr("bench.run.warm.possible", lambda: False)
    machine(monkeypatch, 4, "7,3,GPU-8a,GPU-5b")
    found = gpus.on_this_machine()
    assert found is not None
    jobs = places(Console(quiet=True), None, found, processes, 1, ["tiny"])
    assert jobs == 4 // processes
    how = HowToRun(processes)
    outcomes, _ = launch.run(todo, jobs, lambda *_: how, Silent(), "bench run", found)
    assert len(outcomes) == len(todo)
    for outcome in outcomes:
        assert "the process ended with exit code 0" in str(outcome.status.message)  # all locks were free
    seen = [line.split(",") for line in (tmp_path / "seen.txt").read_text().splitlines()]
    assert len(seen) == len(todo) and {len(names) for names in seen} == {each}
    assert {name for names in seen for name in names} == {"7", "3", "GPU-8a", "GPU-5b"}
    assert sorted(found.take(9)) == ["3", "7", "GPU-5b", "GPU-8a"]  # all given back


def test_gpus_are_those_that_cuda_visible_devices_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def names(count: int, visible: str | None, wish: str = "auto") -> tuple[str, ...] | None:
        machine(monkeypatch, count, visible, wish)
        found = gpus.on_this_machine()
        return None if found is None else found.take(found.count)

    assert names(3, None) == ("0", "1", "2")
    assert names(2, "5, GPU-1c") == ("5", "GPU-1c")
    assert names(1, "MIG-1a,MIG-7c") == ("MIG-1a", "MIG-7c")  # a process sees one of them
    assert names(1, "5,-1,6") == ("5",)  # CUDA leaves out what follows a name it does not know
    assert names(0, None) is None
    assert names(3, None, wish="cpu") is None
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with monkeypatch.context() as patch:
        patch.setattr(gpus, "has_gpu", lambda: True)
        patch.setenv(devices.VISIBLE, "")
        patch.setenv(devices.VARIABLE, "auto")
        assert gpus.on_this_machine() is None


def test_more_cells_than_gpus_carry_wait_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=200)
    assert places(console, 8, Gpus(["0", "1", "2", "3"]), 2, 1, []) == 2
    told = (
        "8 cells at a time were asked for, and there are 4 GPUs, 2 for each cell: 2 run and the others wait"
    )
    assert told in capsys.readouterr().out
    assert places(console, 3, Gpus(["0", "1", "2", "3"]), 1, 1, []) == 3
    assert places(console, None, Gpus(["0", "1", "2"]), 2, 1, []) == 1
    assert places(console, 5, None, 1, 1, []) == 5
    assert capsys.readouterr().out == ""


def test_a_cell_of_more_processes_than_gpus_is_refused() -> None:
    with pytest.raises(
        BenchError, match=r"--processes 3 wants as many GPUs, and .* may use 2. .*--device cpu"
    ):
        places(Console(), None, Gpus(["0", "1"]), 3, 1, [])


def test_without_a_gpu_torch_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "has_gpu", lambda: False)
    monkeypatch.setattr(devices, "kind", lambda: pytest.fail("looked for a device"))
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    assert gpus.on_this_machine() is None
