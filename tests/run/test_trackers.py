"""TensorBoard, W&B (offline) and MLflow, read back from their own files after a training that was killed."""

import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from bench.base.files import read_rows
from bench.run.store import CellDir, ResultsDir, WorkState
from bench.run.tracking import asked, beside, sending
from bench.run.warm import WarmProcess
from tests.support import tracked
from tests.support.running import DOTS, PAUSE, cell, environment, numbers, run_dots, status, train_dots

pytestmark = pytest.mark.slow

ALL = "tensorboard,wandb,mlflow"
STEPS, EVERY = 40, 10
LENGTH = (f"train.eval_every={EVERY}", f"train.checkpoint_every={EVERY}")
SETTINGS = [word for setting in LENGTH for word in ("--set", setting)]


def sender_of(directory: CellDir) -> int:
    """The process that sends a cell."""
    return int(re.findall("[0-9]+", (directory.path / sending.LOCK).read_text())[0])


def alive(pid: int) -> bool:
    """Whether a process is there, and not only waits to be asked for its exit code."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def sent(directory: CellDir) -> bool:
    """Whether all trackers have something of it."""
    note = directory.path / sending.NOTE
    notes = json.loads(note.read_text()) if note.exists() else {}
    return len(notes) == 3 and all(run["step"] >= 0 for run in notes.values())


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracked results directory whose training and sending were killed outright, and went on."""
    out = tmp_path_factory.mktemp("killed") / "my dots"
    arguments = ["--steps", str(STEPS), "--methods", "push", *SETTINGS, "--track", ALL]
    run = ["run", "--no-report", "--model", str(DOTS), "--out", str(out), *arguments]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        for name in (asked.MLFLOW_URI, "MLFLOW_EXPERIMENT_NAME", "WANDB_DIR", "WANDB_PROJECT"):
            patch.delenv(name, raising=False)
        process = WarmProcess(run, out.parent / "output", environment() | {PAUSE: "0.2"})

        while (
            not (logs := list(out.glob("cells/push*/metrics.jsonl"))) or len(read_rows(logs[0])) < 2 * EVERY
        ):
            assert process.poll() is None, (out.parent / "output").read_text()
            time.sleep(0.05)
        directory = cell(out, "push")
        training = status(directory)["pid"]
        os.kill(training, signal.SIGSTOP)  # until all trackers are there, however long their imports take
        while not all(sent(one) for one in ResultsDir(out).cells()):
            assert process.poll() is None, (out.parent / "output").read_text()
            time.sleep(0.05)
        senders = [sender_of(one) for one in (directory, cell(out, "base"))]
        process.kill()
        os.kill(training, signal.SIGKILL)
        os.kill(senders[0], signal.SIGKILL)
        while process.poll() is None or any(map(alive, [training, *senders])):
            time.sleep(0.05)
        assert len(read_rows(directory.metrics)) < STEPS
        final = run_dots(out, *arguments)
        assert final.returncode == 0, final.stdout + final.stderr
        assert "caution" not in final.stderr
    assert status(directory)["state"] == WorkState.DONE
    assert [step for step, _ in tracked.rewards(directory)] == list(range(1, STEPS + 1))
    return out


def run_of(directory: CellDir, name: str) -> str:
    """The name of its run in a tracker."""
    return json.loads((directory.path / sending.NOTE).read_text())[name]["run"]


def held_out(directory: CellDir) -> list[int]:
    """The steps at which it was evaluated."""
    return sorted({row["step"] for row in read_rows(directory.evaluations)})


def test_tensorboard_has_every_step_once(killed: Path) -> None:
    push, base = cell(killed, "push"), cell(killed, "base")
    folder = killed / "tracking" / "tensorboard"
    scalars = tracked.tensorboard(folder / push.id)
    assert scalars["train/reward_mean"] == [(n, float(np.float32(v))) for n, v in tracked.rewards(push)]
    assert [step for step, _ in scalars["eval/brightness"]] == held_out(push) == [10, 20, 30, 40]
    assert "eval/brightness_se" in scalars
    images = tracked.tensorboard_images(folder / push.id)
    assert images["samples/01"][-1] == (STEPS, (push.path / f"samples/{STEPS:06d}/01.png").read_bytes())
    assert [step for step, _ in images["samples/00"]] == [10, 20, 30, 40]
    assert [step for step, _ in tracked.tensorboard(folder / base.id)["eval/brightness"]] == [0]


def test_wandb_has_every_step_once(killed: Path) -> None:
    push = cell(killed, "push")
    run = run_of(push, "wandb")
    file = tracked.one(killed / "tracking" / "wandb", f"offline-run-*-{run}/run-{run}.wandb")
    history = tracked.wandb_history(file)
    assert [(line["_step"], line["train/reward_mean"]) for line in history] == tracked.rewards(push)
    shown = [line["_step"] for line in history if "samples/01/path" in line]
    assert shown == [line["_step"] for line in history if "eval/brightness" in line] == held_out(push)
    picture = file.parent / "files" / history[-1]["samples/01/path"]
    assert picture.read_bytes() == (push.path / f"samples/{STEPS:06d}/01.png").read_bytes()
    (record,) = [r.run for r in tracked.wandb_records(file) if r.WhichOneof("record_type") == "run"][:1]
    assert (record.project, record.display_name, record.run_group) == ("my dots", push.id, "push")
    assert "seed 0" in record.tags
    config = {
        "/".join(item.nested_key) or item.key: json.loads(item.value_json)
        for r in tracked.wandb_records(file)
        if r.WhichOneof("record_type") == "config"
        for item in r.config.update
    }
    assert config["training"] == push.config().model_dump(mode="json")["training"]


def test_mlflow_has_every_step_once(killed: Path) -> None:
    from mlflow import MlflowClient

    push = cell(killed, "push")
    store, run = f"sqlite:///{killed}/tracking/mlflow.db", run_of(push, "mlflow")
    metrics = tracked.mlflow(store, run)
    assert metrics["train/reward_mean"] == tracked.rewards(push)
    assert [step for step, _ in metrics["eval/brightness"]] == held_out(push)
    client = MlflowClient(store)
    found = client.get_run(run)
    experiment = client.get_experiment_by_name("my dots")
    assert experiment is not None
    assert (found.info.run_name, found.info.experiment_id) == (push.id, experiment.experiment_id)
    assert found.info.status == "FINISHED"
    assert {k: found.data.tags[k] for k in ("method", "reward", "seed")} == {
        "method": "push",
        "reward": "brightness",
        "seed": "0",
    }
    assert found.data.params["training.train.lr"] == "0.01"
    artifacts = killed / "tracking" / "mlflow" / run / "artifacts"
    written = yaml.safe_load((artifacts / "config.yaml").read_text())
    assert written == yaml.safe_load((push.path / "config.yaml").read_text())
    for picture in push.path.glob("samples/*/*.png"):
        assert (artifacts / picture.relative_to(push.path)).read_bytes() == picture.read_bytes()
    names = {r.info.run_name for r in client.search_runs([experiment.experiment_id])}
    assert names == {c.id for c in ResultsDir(killed).cells()}


def test_what_is_tracked_has_the_numbers_of_what_is_not(killed: Path, plugin: None, tmp_path: Path) -> None:
    train_dots(tmp_path / "my dots", *LENGTH, steps=STEPS)
    assert numbers(cell(killed, "push")) == numbers(cell(tmp_path / "my dots", "push"))


def test_a_tracker_that_cannot_be_reached_costs_one_caution_and_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(asked.MLFLOW_URI, f"sqlite:///{tmp_path}/nowhere/mlflow.db")
    (tmp_path / "nowhere").touch()  # no directory, and none can be made there
    out = tmp_path / "dots"
    found = run_dots(out, "--steps", "2", "--track", "mlflow,tensorboard")
    assert found.returncode == 0
    assert {status(c)["state"] for c in ResultsDir(out).cells()} == {WorkState.DONE}
    error = " ".join(found.stderr.split())
    assert error.count("caution: mlflow cannot be reached or refuses what it is sent (") == 1
    assert f"can be sent later: python -m bench track {out} mlflow" in error
    assert "Traceback" not in found.stderr
    assert "Traceback" in (cell(out, "push").path / beside.OUTPUT).read_text()
    rates = tracked.tensorboard(out / "tracking" / "tensorboard" / cell(out, "push").id)["train/lr"]
    assert [step for step, _ in rates] == [1, 2]
