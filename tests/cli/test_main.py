"""`bench run` and its fellows: layers of settings, identities of cells, what is told before and after."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.cli import cost, gradients, main, run
from bench.experiment import request, resolve
from bench.experiment.request import Options
from bench.run.process import Exit
from tests.cli.planning import planned
from tests.support.running import DOTS, PATIENCE, bench, environment, here, plan_dots, run_dots, train_dots


def test_layers_win_in_the_order_that_is_documented(plugin: None, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "methods: [push]\nsettings:\n  train: {lr: 0.5, steps: 7}\n  push: {strength: 3, train: {lr: 0.25}}\n"
    )

    def settings(**options: object) -> tuple[float, int | None, float]:
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
    methods = ("full_bp", "truncated_bp", "ddpo", "rlr-balanced", "random-direction")
    assert (asked.request.methods, asked.request.seeds) == (methods, (0, 1))
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


@pytest.mark.slow
@pytest.mark.silent
def test_fewer_steps_than_were_trained_are_told_with_the_steps_of_the_results(
    tmp_path: Path, plugin: None
) -> None:
    train_dots(tmp_path, steps=3)
    told = here("run", "--no-report", "--model", DOTS, "--out", tmp_path, "--methods", "push", "--steps", 2)
    assert told.returncode == 0
    assert "is done at step 3, beyond the 2 asked for" in told.stdout
