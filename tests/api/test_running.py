"""`bench.run` and its fellows: arguments, failures, processes, notebooks."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rich.console

import bench
from bench.api import profiling, words
from bench.base import devices
from bench.base.console import progress
from bench.base.files import read_json
from bench.base.layers import read_yaml
from bench.experiment.request import Options
from bench.run.experiment import Ended, command_line
from bench.run.process import COMMAND_VARIABLE
from tests.report import fake_gradients
from tests.support.running import DOTS, environment

SCRIPT = """
import bench
print("read once")
found = bench.run(
    methods="push", model={model!r}, seeds=[0, 1], steps=2, settings={settings!r},
    out="out", jobs=2, report=False,
)
print(found.cells["state"].tolist())
"""


def test_names_and_settings_may_be_said_in_several_ways() -> None:
    assert words.names(["rlr", "zo"]) == words.names("rlr,zo") == "rlr,zo"
    assert words.names(range(3)) == "0,1,2"
    assert words.names(0) == "0"
    assert words.names(None) is None
    said = ["rlr.h=3", "train.lr=1e-05", 'rlr.train.optimizer="adam"', 'model.path="/x"', "a.b=[1, null]"]
    tree = {"rlr.h": np.int64(3), "train": {"lr": 1e-5}, "rlr": {"train": {"optimizer": "adam"}},
            "model.path": Path("/x"), "a.b": (1, None)}  # fmt: skip
    assert words.settings(tree) == said
    assert words.settings(said) == said
    assert words.settings(None) == []
    with pytest.raises(bench.BenchError, match="expected a dict"):
        words.settings("rlr.h=3")


def test_what_a_call_sets_for_its_processes_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VARIABLE, "auto")
    with words.asked_by("bench.run(steps=1)", "cpu"):
        assert devices.asked() == "cpu"
        assert command_line() == "bench.run(steps=1)"
    assert devices.asked() == "auto"
    assert COMMAND_VARIABLE not in os.environ
    with pytest.raises(bench.BenchError, match="'gpu' is no device"):
        bench.run(device="gpu")


def test_in_a_notebook_text_is_plain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as IPython's kernel does
    console = words.console()
    assert not console.is_terminal
    console.print("[red]cell[/red]")
    with words.asked_by("bench.run()", None):
        progress("reading")
    assert capsys.readouterr() == ("cell\n… reading\n", "")


@pytest.mark.slow
def test_a_cell_that_failed_is_told_when_all_have_ended(
    trained: bench.Results, plugin: None, tried_here: None
) -> None:
    assert trained.cells.set_index("method")["state"].to_dict() == {
        "base": "done", "broken": "failed", "leaning": "done",
    }  # fmt: skip
    assert trained.unfinished["problem"].tolist() == ["RuntimeError: out of luck"]
    again = {"model": str(DOTS), "steps": 3, "out": trained.path, "in_process": True, "report": False}
    with pytest.raises(bench.CellsFailed, match="out of luck") as failed:
        bench.run(methods=["leaning", "broken"], settings=["broken.at=2"], **again)
    assert failed.value.results.unfinished["method"].tolist() == ["broken"]
    assert "check=False" in str(failed.value)


@pytest.mark.slow
def test_a_call_is_on_record_as_one_can_write_it_again(trained: bench.Results) -> None:
    said = f"bench.run(methods=['leaning', 'broken'], model={str(DOTS)!r}, steps=3, settings="
    assert read_yaml(trained.path / "experiment.yaml")["command"].startswith(said)
    for cell in trained.loaded.cells:
        facts = read_json(cell.path / "env.json")
        assert facts is not None
        assert facts["command"].startswith(said)
        assert "in_process=True" in facts["command"]


def test_a_dry_run_has_the_cells_of_the_plan(tmp_path: Path, plugin: None, tried_here: None) -> None:
    found = bench.run(methods=["push"], model=str(DOTS), seeds=[3], out=tmp_path / "out", dry_run=True)
    assert found.cells[["method", "state", "step"]].to_numpy().tolist() == [
        ["base", "pending", 0], ["push", "pending", 0],
    ]  # fmt: skip
    assert found.metrics.empty
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_script_without_a_guard_is_not_run_again_by_its_cells(tmp_path: Path) -> None:
    text = SCRIPT.format(model=str(DOTS), settings={"model.steps": 3})  # which is tried out in a process, too
    (tmp_path / "mine.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "mine.py"], env=environment(), cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("read once") == 1
    assert done.stdout.endswith("['done', 'done', 'done']\n")
    assert "\x1b" not in done.stdout + done.stderr


def test_gradients_hand_on_what_was_asked_and_return_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def measure(console: Any, options: Options, *others: Any) -> Ended:
        asked.extend((options, *others))
        fake_gradients.write(options.out or tmp_path)
        return Ended(0)

    monkeypatch.setattr(profiling, "measure", measure)
    found = bench.gradients(["rlr"], at=tmp_path, seed=2, draws=3, settings={"rlr.h": 1}, out=tmp_path)
    assert len(set(found["method"])) == 3
    assert asked[0] == Options(methods="rlr", seeds="2", settings=["rlr.h=1"], out=tmp_path)
    assert asked[1:6] == [[str(tmp_path)], None, 3, None, None]


@pytest.mark.slow
def test_sample_returns_pictures_and_writes_them_where_it_is_told(tmp_path: Path) -> None:
    found = bench.sample("an owl", n=2, settings={"model.steps": 1}, out=tmp_path / "there", device="cpu")
    assert [picture.size for picture in found] == [(64, 64), (64, 64)]
    assert found[0].tobytes() != found[1].tobytes()
    assert sorted(p.name for p in (tmp_path / "there").iterdir()) == ["00.png", "00.txt", "01.png", "01.txt"]
