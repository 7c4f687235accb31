"""A user's mistake is one message, told before anything runs."""

import os
from pathlib import Path

import pytest

from bench.base import devices
from bench.base.errors import BenchError
from bench.experiment.checks import without_reward_grad
from tests.cli.planning import planned
from tests.support.running import bench, here
from tests.support.watched import watched


def message(**options: object) -> str:
    """The error that planning ends in."""
    with pytest.raises(BenchError) as caught:
        planned(**options)
    return str(caught.value)


def test_mistake_is_one_message_with_exit_code_2_and_no_traceback(tmp_path: Path) -> None:
    done = bench("run", "--methods", "dppo", "--out", tmp_path / "x")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown method 'dppo'. Did you mean 'ddpo'? Known: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_device_is_handed_on_to_all_processes_and_an_unknown_one_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(devices.VARIABLE, "auto")
    done = here("run", "--device", "gpu", "--out", tmp_path / "x")
    assert done.returncode == 2 and "--device: 'gpu' is no device" in done.stderr
    assert here("run", "--device", "cpu", "--dry-run", "--out", tmp_path / "x").returncode == 0
    assert os.environ[devices.VARIABLE] == "cpu"


@pytest.mark.slow
def test_missing_hub_weights_without_network_fail_without_a_try_with_the_ways_to_get_them(
    tmp_path: Path,
) -> None:
    options = ("--methods", "rlr", "--model", "sd14", "--prompts", "emoji", "--out", tmp_path / "x")
    done, record = watched(tmp_path / "record.json", "run", *options)
    assert record.connected == record.waits == record.started == []
    assert record.heavy() <= {"torch", "numpy", "huggingface_hub"}
    assert done.returncode == 2
    assert "CompVis/stable-diffusion-v1-4" in done.stderr
    assert "python -m bench fetch --model sd14" in done.stderr
    assert "hf download" in done.stderr
    assert "--set model.path=DIRECTORY" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"model": "tinny"}, "unknown model 'tinny'. Did you mean 'tiny'?"),
        ({"model": "SD14"}, "unknown model 'SD14'. Did you mean 'sd14'?"),
        ({"methods": "DDPO"}, "unknown method 'DDPO'. Did you mean 'ddpo'?"),
        ({"seeds": "4-0"}, "--seeds 4-0: the range 4-0 runs backwards"),
        ({"reward": "brigthness"}, "unknown reward 'brigthness'. Did you mean 'brightness'?"),
        ({"methods": "push,push"}, "a method is named twice"),
        ({"settings": ["push.strenght=2"]}, "2: push.strenght: unknown key. Did you mean 'strength'?"),
        ({"settings": ["psuh.strength=2"]}, "unknown section 'psuh'. Did you mean 'push'?"),
        ({"settings": ["train.lr=-1"]}, "--set train.lr=-1: train.lr: input should be greater than 0"),
        ({"settings": ["push.train.stpes=1"]}, "push.train.stpes: unknown key. Did you mean 'steps'?"),
        ({"settings": ["rlr.h=3"]}, "--set rlr.h=3: 'rlr' is not part of this run"),
        ({"seeds": "0,x"}, "--seeds 0,x: 'x' is no whole number or range: write 0,1,2, or 0-4, or 0-2,7"),
        ({"seeds": "0,-1"}, "--seeds 0,-1: '-1' is no whole number or range"),
        ({"reward": "clip:1,jpeg"}, "jpeg has no weight. A sum wants one for each (jpeg:1)"),
        ({"reward": "clip:x"}, "'x' is no weight for clip: a number other than 0"),
        ({"reward": "clip:1:2"}, "'1' is no weight for clip"),
        ({"reward": "python:"}, "write python:module.function"),
        ({"reward": "python"}, "python.function: is missing (dotted name of the function"),
        ({"reward": "python:no_module_there.fn"}, "cannot import no_module_there"),
        ({"methods": ","}, "--methods: names no method"),
        ({"weights": "foo"}, "--weights foo: expected random, path:DIRECTORY or hub:ORG/NAME"),
        ({"weights": "random", "model": "FILE.yaml"}, "FILE.yaml"),
        ({"settings": ["train.batch_size=3"]}, "--set train.batch_size=3: batch_size 3 is no multiple of"),
        ({"config": "demoo"}, "Did you mean 'demo'?"),
        ({"config": "none.yaml"}, "none.yaml: cannot be read"),
        ({"prompts": "emojy"}, "emojy"),
        ({"model": "path:/no/such/place"}, "no weights at /no/such/place"),
    ],
)  # fmt: skip
def test_every_mistake_is_told_before_anything_runs(
    plugin: None, tmp_path: Path, options: dict[str, object], expected: str
) -> None:
    assert expected in message(**options, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_function_in_a_sum_takes_settings_too(
    plugin: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_in_a_sum.py").write_text(
        "def fn(images, prompts):\n    return images.mean((1, 2, 3))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    total: dict[str, object] = {"methods": "full_bp", "reward": "python:mine_in_a_sum.fn:1,colourfulness:0.5"}
    assert "has none" in message(**total)
    planned(**total, settings=["python.differentiable=true"])
    alone = message(methods="full_bp", reward="python:mine_in_a_sum.fn")
    assert "If it computes with torch all the way, say so: --set python.differentiable=true" in alone


def test_methods_that_need_gradients_refuse_a_reward_without_and_rlr_names_its_other_form(
    plugin: None,
) -> None:
    refused = message(methods="full_bp", reward="jpeg")
    assert "method 'full_bp' needs the gradient of the reward, and reward 'jpeg' has none." in refused
    assert "Choose a differentiable reward, or awm, ddpo, grpo, nft, reinforce, zo, or rlr with" in refused
    others = [name for name in without_reward_grad() if planned(methods=name, reward="jpeg")]
    assert others == ["awm", "ddpo", "grpo", "nft", "reinforce", "zo"]
    assert "--set rlr.fo=false" in message(methods="rlr", reward="jpeg", settings=["model.steps=10"])


def test_unwritable_results_directory_is_told_before_anything_runs(plugin: None, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file is no writable directory" in message(out=tmp_path / "file" / "below")


def test_full_disk_is_told_before_anything_runs(
    plugin: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 5 * 2**20})())
    assert "only 5 MiB free" in message(out=tmp_path)


@pytest.mark.silent
def test_unknown_slurm_profile_is_told_under_the_flag_that_named_it() -> None:
    assert "--slurm nope: neither a YAML file" in here("run", "--slurm", "nope").stderr
    assert "--profile nope: neither a YAML file" in here("submit", "--profile", "nope").stderr


@pytest.mark.silent
@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}\n"])
def test_empty_experiment_file_does_not_run_the_demo(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert "the file says nothing" in message(config=str(tmp_path / "mine.yaml"), methods=None, model=None)
