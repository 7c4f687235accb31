import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.base.errors import BenchError
from bench.cli import cost, gradients, main, run
from bench.experiment import request, resolve
from bench.experiment.request import Options
from bench.run import experiment
from bench.run.process import Exit
from tests.support.running import DOTS, PATIENCE, bench, environment, here, plan_dots, run_dots, train_dots
from tests.support.watched import watched


def planned(**options: object) -> experiment.PlannedRun:
    """Plan in this process, on the test model unless told otherwise."""
    defaults: dict[str, object] = {"methods": "push", "model": str(DOTS)}
    return experiment.plan(request.build(Options(**(defaults | options))), force=False)  # type: ignore[arg-type]


def message(**options: object) -> str:
    """The error that planning ends in."""
    with pytest.raises(BenchError) as caught:
        planned(**options)
    return str(caught.value)


@pytest.mark.slow
def test_list_names_everything_and_imports_no_large_package(tmp_path: Path) -> None:
    done, record = watched(tmp_path / "record.json", "list")
    assert done.returncode == 0, done.stderr
    assert record.heavy() == set()
    assert len(record.modules) < 700
    assert record.started == record.connected == record.waits == []
    for name in (
        "rlr",
        "ddpo",
        "alignprop",
        "vader",
        "zo",
        "truncated_bp",
        "full_bp",
        "clip",
        "jpeg",
        "tiny",
        "demo",
    ):
        assert f" {name} " in done.stdout


@pytest.mark.slow
def test_describe_shows_documentation_settings_and_shipped_values() -> None:
    done = bench("describe", "rlr")
    assert done.returncode == 0
    assert "RLR" in done.stdout
    assert "--set rlr.KEY=VALUE" in done.stdout
    assert "configs/methods/rlr.yaml" in done.stdout


@pytest.mark.parametrize("name", ["train", "eval", "model", "experiment", "tiny", "demo"])
def test_describe_knows_sections_models_and_experiments(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    from bench.cli.describe import show

    show(Console(width=200), name)
    assert name in capsys.readouterr().out


@pytest.mark.slow
def test_describe_of_an_unknown_name_suggests_the_closest() -> None:
    done = bench("describe", "rlrr")
    assert done.returncode == 2
    assert done.stderr.startswith("error: nothing is called 'rlrr'. Did you mean 'rlr'?")


def test_mistake_is_one_message_with_exit_code_2_and_no_traceback(tmp_path: Path) -> None:
    done = bench("run", "--methods", "dppo", "--out", tmp_path / "x")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown method 'dppo'. Did you mean 'ddpo'? Known: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()


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
        ({"reward": "brigthness"}, "unknown reward 'brigthness'. Did you mean 'brightness'?"),
        ({"methods": "push,push"}, "a method is named twice"),
        ({"settings": ["push.strenght=2"]}, "2: push.strenght: unknown key. Did you mean 'strength'?"),
        ({"settings": ["psuh.strength=2"]}, "unknown section 'psuh'. Did you mean 'push'?"),
        ({"settings": ["train.lr=-1"]}, "--set train.lr=-1: train.lr: input should be greater than 0"),
        ({"settings": ["push.train.stpes=1"]}, "push.train.stpes: unknown key. Did you mean 'steps'?"),
        ({"settings": ["rlr.h=3"]}, "--set rlr.h=3: 'rlr' is not part of this run"),
        ({"seeds": "0,x"}, "--seeds 0,x: expected whole numbers with commas between them"),
        ({"seeds": "0,-1"}, "--seeds 0,-1: expected whole numbers"),
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


def test_methods_that_need_gradients_refuse_a_reward_without_and_rlr_names_its_other_form(
    plugin: None,
) -> None:
    refused = message(methods="full_bp", reward="jpeg")
    assert "method 'full_bp' needs the gradient of the reward, and reward 'jpeg' has none." in refused
    assert "Choose a differentiable reward" in refused
    assert "--set rlr.fo=false" in message(methods="rlr", reward="jpeg", settings=["model.steps=10"])


def test_unwritable_results_directory_is_told_before_anything_runs(plugin: None, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file is no writable directory" in message(out=tmp_path / "file" / "below")


def test_full_disk_is_told_before_anything_runs(
    plugin: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 5 * 2**20})())
    assert "only 5 MiB free" in message(out=tmp_path)


def test_layers_win_in_the_order_that_is_documented(plugin: None, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "methods: [push]\nsettings:\n  train: {lr: 0.5, steps: 7}\n  push: {strength: 3, train: {lr: 0.25}}\n"
    )

    def settings(**options: object) -> tuple[float, int, float]:
        found = (
            planned(methods=None, config=str(file), out=tmp_path / "x", **options).cells[1].config.training
        )
        assert found is not None
        return found.train.lr, found.train.steps, found.method.config["strength"]

    assert settings() == (0.25, 7, 3)
    assert settings(steps=9) == (0.25, 9, 3)
    assert settings(settings=["train.lr=1", "push.strength=4"]) == (1, 7, 4)
    assert settings(settings=["train.lr=1", "push.train.lr=2"]) == (2, 7, 3)
    assert settings(steps=9, settings=["train.steps=11"]) == (0.25, 11, 3)


def test_id_covers_what_changes_numbers_and_nothing_else(plugin: None, tmp_path: Path) -> None:
    def ids(**options: object) -> list[str]:
        return [cell.id for cell in planned(out=tmp_path, **options).cells]

    base, push = ids()
    assert ids(steps=100, settings=["train.checkpoint_every=1"]) == [base, push]
    for change in ("train.lr=3", "push.strength=2", "model.guidance=2", "eval.seed=1", "reward.target=0.5"):
        assert ids(settings=[change])[1] != push
    assert ids(threads=2)[1] != push
    assert ids(seeds="1")[0] == base
    assert ids(settings=["push.strength=2"])[0] == base


def test_id_follows_the_contents_of_weights_and_not_their_place(tmp_path: Path, plugin: None) -> None:
    def base(directory: Path) -> str:
        return planned(settings=[f"model.path={directory}"], out=tmp_path / "x").cells[0].id

    for name, weights in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    assert base(tmp_path / "a") == base(tmp_path / "b") != base(tmp_path / "c")


def test_without_options_it_is_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request.build(Options())
    assert asked.request.methods == ("rlr", "ddpo", "alignprop", "vader", "zo-antithetic", "truncated_bp")
    assert asked.out == Path("results/demo")
    assert request.build(Options(methods="all")).request.methods is None


@pytest.mark.slow
def test_dry_run_prints_cells_and_writes_nothing_and_knows_only_times_that_were_measured(
    tmp_path: Path, plugin: None
) -> None:
    first = run_dots(tmp_path / "x", "--dry-run")
    assert first.returncode == 0
    assert "unknown" in first.stdout
    assert list(tmp_path.iterdir()) == []
    train_dots(tmp_path / "y")
    second = run_dots(tmp_path / "x", "--dry-run", "--steps", 600)
    assert "unknown" not in second.stdout.partition("Times are")[0]


@pytest.mark.slow
def test_cell_that_another_run_is_busy_with_is_left_alone(tmp_path: Path, plugin: None) -> None:
    (_, work) = plan_dots(tmp_path)
    with work.directory.locked():
        done = run_dots(tmp_path)
    assert done.returncode == 1
    assert "is in use by process" in done.stdout
    assert work.directory.status().state == "pending"


@pytest.mark.slow
def test_cells_end_when_their_parent_is_gone(tmp_path: Path, plugin: None) -> None:
    (_, work) = plan_dots(tmp_path, "push.pause=0.2", steps=1000)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "cell", str(work.directory.path), "--with-parent"],
        env=environment(),
        stdin=subprocess.PIPE,
    )
    while not work.log.exists():
        time.sleep(0.1)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=PATIENCE) == Exit.FAILED


def test_cells_with_the_same_settings_have_the_same_id_from_any_machine(plugin: None, tmp_path: Path) -> None:
    (one,) = [cell for cell in planned(out=tmp_path).cells if cell.config.training is None]
    again = resolve.cell_id(one.config.model_validate(one.config.model_dump(mode="json")))
    assert again == one.id


@pytest.mark.slow
def test_sample_draws_with_the_lora_and_the_settings_of_a_cell(tmp_path: Path) -> None:
    from tests.support.random_init import build_random_pipeline

    model = build_random_pipeline(tmp_path / "sd")
    options = ("--model", f"path:{model}", "--prompt", "a cat", "--n", 2, "--set", "model.steps=3")
    first = here("sample", *options, "--out", tmp_path / "a")
    assert first.returncode == 0, first.stderr
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["00.png", "00.txt", "01.png", "01.txt"]
    pictures = {(tmp_path / "a" / f"0{k}.png").read_bytes() for k in (0, 1)}
    assert len(pictures) == 2
    cells_dir = tmp_path / "out" / "cells"
    options = ("--methods", "full_bp", "--model", f"path:{model}", "--set", "model.steps=3", "--steps", 2)
    quick = ("--set", "eval.prompts=1", "--reward", "colourfulness", "--set", "train.lr=0.1")
    trained = here("run", "--in-process", *options, *quick, "--out", tmp_path / "out", "--no-report")
    assert trained.returncode == 0, trained.stdout
    (full_bp,) = cells_dir.glob("full_bp-*")
    second = here("sample", "--lora", full_bp, "--prompt", "a cat", "--n", 1, "--out", tmp_path / "b")
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "b" / "00.png").read_bytes() not in pictures


@pytest.mark.slow
def test_sample_without_a_lora_at_the_named_place_says_so(tmp_path: Path) -> None:
    done = bench("sample", "--prompt", "a cat", "--lora", tmp_path)
    assert done.returncode == 2
    assert f"error: --lora {tmp_path}: neither a cell with a trained LoRA nor" in done.stderr


class Said(Exception):
    """What a command says first."""


@pytest.mark.silent
@pytest.mark.parametrize(
    "words",
    [
        ("plan", "--budget", "1GB"),
        ("profile", "--methods", "zo"),
        ("gradients", "--methods", "zo"),
        ("report", "results"),
        ("verify", "results"),
        ("evaluate", "--images", "x"),
        ("sample", "--prompt", "x"),
    ],
    ids=lambda words: words[0],
)
def test_command_that_takes_long_says_what_it_does_before_its_slow_imports(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(("bench.measure", "bench.report"))]:
        monkeypatch.delitem(sys.modules, name)

    def say(text: str) -> None:
        raise Said(text)

    for module in (cost, gradients, run):
        monkeypatch.setattr(module, "progress", say)
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    with pytest.raises(Said, match=f"^{words[0]}: "):
        main.main()
    assert not [name for name in sys.modules if name.startswith(("bench.measure.", "bench.report."))]


@pytest.mark.silent
def test_description_of_a_preset_shows_its_own_values() -> None:
    told = here("describe", "rlr-h3").stdout
    row = next(line for line in told.splitlines() if line.startswith("│ h "))
    assert row.split("│")[3].strip() == "3"


@pytest.mark.silent
@pytest.mark.parametrize("name", ["v100x8", "sd14", "demo"])
def test_everything_that_list_names_can_be_described(name: str) -> None:
    if name in here("list").stdout:
        assert here("describe", name).returncode == 0


@pytest.mark.silent
def test_unknown_slurm_profile_is_told_under_the_flag_that_named_it() -> None:
    assert "--slurm nope: neither a YAML file" in here("run", "--slurm", "nope").stderr
    assert "--profile nope: neither a YAML file" in here("submit", "--profile", "nope").stderr


@pytest.mark.silent
@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}\n"])
def test_empty_experiment_file_does_not_run_the_demo(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert "the file says nothing" in message(config=str(tmp_path / "mine.yaml"), methods=None, model=None)


@pytest.mark.slow
@pytest.mark.silent
def test_fewer_steps_than_were_trained_are_told_with_the_steps_of_the_results(
    tmp_path: Path, plugin: None
) -> None:
    train_dots(tmp_path, steps=3)
    told = here("run", "--no-report", "--model", DOTS, "--out", tmp_path, "--methods", "push", "--steps", 2)
    assert told.returncode == 0
    assert "is done at step 3, beyond the 2 asked for" in told.stdout
