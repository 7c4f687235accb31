import itertools
import math
import re
from pathlib import Path

import pytest

from bench.base.files import read_rows
from bench.run import train
from bench.run.process import Exit
from tests.support.running import ROOT, cell, numbers, run_dots, status, train_dots


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "message", "cause"),
    [
        ("error", "RuntimeError: out of luck", None),
        ("nan reward", "step 3: reward 'brightness' is not finite on 4 of 4 pictures, the first of '", None),
        ("nan gradient", "step 3: the gradient is not finite (norm nan)", "not finite"),
    ],
)
def test_what_goes_wrong_ends_the_cell_as_failed_with_reason_and_traceback(
    tmp_path: Path, plugin: None, how: str, message: str, cause: str | None
) -> None:
    ends = train_dots(tmp_path, f"broken.how={how}", methods="broken,push")
    assert ends == [Exit.DONE, Exit.FAILED, Exit.DONE]
    failed = cell(tmp_path, "broken")
    assert status(failed)["state"] == "failed" and status(failed)["message"].startswith(message)
    assert status(failed)["cause"] == cause
    assert "Traceback" in (failed.path / "traceback.txt").read_text()
    assert len(read_rows(failed.metrics)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("kill", "the process was killed by SIGKILL (out of memory?). Its last line: "),
        ("full disk", "no space left to write"),
    ],
)
def test_a_cell_that_dies_is_failed_and_does_not_stop_the_others(
    tmp_path: Path, how: str, message: str
) -> None:
    done = run_dots(tmp_path, "--methods", "broken,push", "--set", f"broken.how={how}")
    assert done.returncode == 1
    assert message in done.stdout
    assert status(cell(tmp_path, "broken"))["state"] == "failed"
    assert status(cell(tmp_path, "push"))["state"] == "done"
    assert [p.name[:8] for p in (cell(tmp_path, "broken").path / "checkpoint").iterdir()] == ["00000002"]


@pytest.mark.slow
def test_evaluating_more_often_does_not_change_training(tmp_path: Path, plugin: None) -> None:
    train_dots(tmp_path / "never")
    train_dots(tmp_path / "always", "train.eval_every=1")
    never, always = cell(tmp_path / "never", "push"), cell(tmp_path / "always", "push")
    assert numbers(never)[0] == numbers(always)[0]
    assert sorted({row["step"] for row in read_rows(always.evaluations)}) == [1, 2, 3, 4, 5, 6]
    assert {row["step"] for row in read_rows(never.evaluations)} == {6}


@pytest.mark.slow
def test_training_raises_the_reward_that_it_is_told_to_raise(tmp_path: Path, plugin: None) -> None:
    train_dots(tmp_path, "train.lr=3e-2", "reward.target=0.2", steps=40)
    rows = read_rows(cell(tmp_path, "push").metrics)
    assert rows[-1]["reward_mean"] > rows[0]["reward_mean"] + 0.02


@pytest.mark.slow
def test_seed_decides_the_numbers_and_seeds_share_the_base_model(tmp_path: Path, plugin: None) -> None:
    assert train_dots(tmp_path, seeds="0,1") == [Exit.DONE] * 3
    first, second = (cell(tmp_path, f"push-dots-brightness-s{seed}") for seed in (0, 1))
    assert numbers(first)[0] != numbers(second)[0]


def test_base_model_is_evaluated_on_the_same_noise_and_not_trained(tmp_path: Path, plugin: None) -> None:
    train_dots(tmp_path)
    base, trained = cell(tmp_path, "base"), cell(tmp_path, "push")
    pairs = [
        [(r["prompt"], r["image"], r["reward"]) for r in read_rows(c.evaluations)] for c in (base, trained)
    ]
    assert pairs[0] == pairs[1]
    assert not base.metrics.exists()
    assert {row["step"] for row in read_rows(base.evaluations)} == {0}


@pytest.mark.slow
def test_clipping_bounds_the_step_and_logs_the_norm_before_it(tmp_path: Path, plugin: None) -> None:
    train_dots(tmp_path / "clipped", "train.clip_norm=1e-3", "push.strength=100")
    train_dots(tmp_path / "free", "push.strength=100")
    clipped, free = (read_rows(cell(tmp_path / name, "push").metrics) for name in ("clipped", "free"))
    assert clipped[0]["grad_norm"] == free[0]["grad_norm"] > 1e-3


def test_methods_that_use_a_batch_twice_count_steps_batches_and_samples(tmp_path: Path, plugin: None) -> None:
    train_dots(tmp_path, "push.inner=2", steps=5)
    rows = read_rows(cell(tmp_path, "push").metrics)
    assert [(r["step"], r["batch"], r["samples"]) for r in rows] == [
        (1, 1, 4), (2, 1, 4), (3, 2, 8), (4, 2, 8), (5, 3, 12), (6, 3, 12),
    ]  # fmt: skip
    assert status(cell(tmp_path, "push"))["step"] == 6


@pytest.mark.slow
def test_every_logged_key_is_documented(tmp_path: Path, plugin: None) -> None:
    train_dots(tmp_path)
    text = (ROOT / "docs" / "results.md").read_text()
    documented = set(re.findall(r"`([a-z_]+)`", text))
    push = cell(tmp_path, "push")
    logged = {
        *read_rows(push.metrics)[0],
        *(k for row in read_rows(push.evaluations) for k in row),
        *status(push),
    }
    assert logged <= documented
    assert set(push.config().model_dump()) <= documented


def test_environment_names_versions_commit_and_command(tmp_path: Path, plugin: None) -> None:
    import json

    train_dots(tmp_path)
    found = json.loads((cell(tmp_path, "push").path / "env.json").read_text())
    assert {"torch", "diffusers", "peft"} <= set(found["packages"])
    assert found["git"] is None or len(found["git"]["commit"]) == 40
    assert found["command"]
    assert math.isfinite(found["memory"])


def test_seconds_of_compiling_are_on_record_apart(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks, compiled = itertools.count(), itertools.count()
    monkeypatch.setattr(train, "clock", lambda: float(next(ticks)))  # a second from one look to the next
    monkeypatch.setattr(train, "compile_seconds", lambda: 100.0 * next(compiled))
    train_dots(tmp_path)
    rows = read_rows(cell(tmp_path, "push").metrics)
    assert rows[-1]["compile_seconds"] == 100.0 * len(rows)
    assert rows[-1]["seconds"] == len(rows)
