"""`make gpu-check` in its reduced form, so that it does not rot where there is no GPU."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from scripts import gpu_check
from scripts.gpu.row import ROOT, Place, Row

KINDS = {
    "kernel",
    "gradient",
    "seconds",
    "memory",
    "profile",
    "two cells",
    "continued",
    "held-out reward",
    "everything",
}


@pytest.mark.slow
def test_every_check_runs_and_finds_nothing_wrong_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.gpu_check", "--device", "cpu", "--out", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads((tmp_path / "gpu-check.json").read_text())
    assert {row["check"] for row in found["rows"]} == KINDS
    assert len(found["seconds"]) == len(gpu_check.CHECKS)


def test_a_fault_and_a_check_that_breaks_are_told_and_hide_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(place: Place) -> Iterator[Row]:
        yield Row("first", "a", "1")
        raise RuntimeError("no such kernel")

    def wrong(place: Place) -> Iterator[Row]:
        yield Row("second", "b", "2", "it should be 3")

    monkeypatch.setattr(gpu_check, "CHECKS", (broken, wrong))
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--device", "cpu", "--out", str(tmp_path)])
    threads = torch.get_num_threads()
    with pytest.raises(SystemExit) as ended:
        gpu_check.main()
    torch.set_num_threads(threads)
    assert ended.value.code == 1
    rows = json.loads((tmp_path / "gpu-check.json").read_text())["rows"]
    assert [row["check"] for row in rows] == ["first", "test_gpu_check.broken", "second", "everything"]
    assert "RuntimeError: no such kernel" in rows[1]["fault"]
    assert "it should be 3" in capsys.readouterr().out
