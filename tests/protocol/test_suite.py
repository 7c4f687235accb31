"""The whole protocol by one command: its plan, what it records, and how it goes on."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.base.files import append_rows
from bench.base.layers import read_yaml
from bench.data import sources
from bench.protocol import record, tune
from bench.protocol.suite import Effort, Run, Suite, final, plan, runs, state
from bench.run.store import Cause, WorkState
from tests.protocol.cells import end_run, end_trial
from tests.protocol.workloads import written
from tests.support.running import here

UNREPEATABLE = ["seconds", "memory"]
NAME = "dots-workload"


def planned(tmp_path: Path, *methods: str, effort: Effort | None = None, **changes: object) -> Suite:
    """A suite on the test model, of two trials, two studies and three seeds."""
    path = written(tmp_path, **changes)
    return plan(methods or ("full_bp",), [str(path)], effort or Effort(2, 2, 3), tmp_path / "out")


def tuned(tmp_path: Path, *methods: str) -> Suite:
    """The same with all trials ended: study 0 chose its second trial, study 1 its first."""
    suite = planned(tmp_path, *methods)
    (part,) = suite.parts
    for trial in part.tuning.trials:
        end_trial(part, trial, 0.5 + 0.1 * (trial.number != trial.study))
    return suite


def read(out: Path, name: str) -> Any:
    """A table of the record as it is."""
    return pd.read_csv(out / "record" / NAME / name)


def table(suite: Suite, name: str) -> Any:
    """A table of the record, written anew."""
    record.write(suite)
    return read(suite.out, name)


def test_a_final_run_takes_what_the_study_of_its_seed_chose(tmp_path: Path, plugin: None) -> None:
    suite = tuned(tmp_path, "push", "full_bp")
    (part,) = suite.parts
    found = runs(suite, part)
    base, *others = found
    assert (base.method, base.seed, base.cell) == ("base", None, part.base)
    assert final(part, found).target == 0.6  # so that their report says when it was reached
    assert [(run.method, run.seed, run.study) for run in others] == [
        (method, seed, seed % 2) for method in ("push", "full_bp", "random-direction") for seed in (0, 1, 2)
    ]
    drawn = {(trial.method, trial.study, trial.number): trial.settings for trial in part.tuning.trials}
    best = {0: 1, 1: 0}
    assert all(
        run.settings == drawn[run.method, run.seed % 2, best[run.seed % 2]] for run in others if run.seed
    )
    assert others[3].settings != others[4].settings and others[3].settings == others[5].settings
    assert others[0].settings == {}  # nothing to tune
    order = final(part, found).combinations
    assert [combination.seeds[0] for combination in order[1:]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_final_runs_are_those_of_the_comparison_and_never_those_of_tuning(
    tmp_path: Path, plugin: None
) -> None:
    suite = planned(tmp_path, "full_bp", untouched=["colourfulness"], evaluations=3)
    (part,) = suite.parts
    for trial in part.tuning.trials:
        end_trial(part, trial, 0.5)
    cell = end_run(part, runs(suite, part)[1], {1: {"a": 0.5}})
    config = cell.config()
    assert config.training is not None and config.training.train.evaluations == 3
    assert (config.eval.skip, config.eval.prompts) == (0, 3)
    assert config.eval.rewards == ("brightness", "colourfulness")
    assert config.training.train.budget == 200


def test_the_null_row_is_in_every_suite_once(tmp_path: Path, plugin: None) -> None:
    assert planned(tmp_path, "full_bp").methods == ("full_bp", "random-direction")
    assert planned(tmp_path, "random-direction", "push").methods == ("random-direction", "push")


def test_a_study_of_misses_has_runs_that_are_misses_and_one_that_was_killed_is_left(
    tmp_path: Path, plugin: None
) -> None:
    suite = planned(tmp_path, "full_bp")
    (part,) = suite.parts
    for trial in part.tuning.trials:
        if trial.method == "full_bp" and trial.study == 0:
            end_trial(part, trial, None)
        elif trial.method == "full_bp":
            end_trial(part, trial, None if trial.number else 0.5, Cause.KILLED if trial.number else None)
    found = {(run.method, run.seed): run for run in runs(suite, part)}
    assert all(found["full_bp", seed].missed for seed in (0, 2))
    assert found["full_bp", 1] == Run("full_bp", 1, 1)  # its study goes on
    lines = table(suite, record.RUNS).set_index(["method", "seed"])["state"]
    assert lines["full_bp"].to_dict() == {0: "missed", 1: "left", 2: "missed"}
    assert set(lines["random-direction"]) == {"left"}
    chosen = read_yaml(suite.out / "record" / NAME / record.CHOSEN)
    assert chosen["workload"] == NAME
    assert chosen["methods"] == {"full_bp": [], "random-direction": []}
    assert not (part.tuning.experiment.out / tune.CHOSEN).exists()  # trials are left


def test_a_run_that_diverges_is_recorded_as_failed(tmp_path: Path, plugin: None) -> None:
    suite = tuned(tmp_path, "full_bp")
    (part,) = suite.parts
    one, other = runs(suite, part)[1:3]
    end_run(part, one, {})
    cell = end_run(part, other, {1: {"a": 0.5}})
    assert [state(part, run) for run in (one, other)] == ["failed", "done"]
    cell.write_status(WorkState.RUNNING)
    assert state(part, other) == "left"


def test_the_record_holds_means_of_whole_evaluations_and_scores_of_ended_runs(
    tmp_path: Path, plugin: None
) -> None:
    suite = tuned(tmp_path, "full_bp")
    (part,) = suite.parts
    base, one, other, *_ = runs(suite, part)
    end_run(part, base, {0: {"a": 0.1, "b": 0.3, "c": 0.2}})
    cell = end_run(part, one, {2: {"a": 0.3, "b": 0.4, "c": 0.5}, 4: {"a": 1 / 3, "b": 0.5, "c": 0.6}})
    costs = {"samples": 8, "nfe_again": 3, "seconds": 1.5, "memory": 123456789, "terms": {}}
    append_rows(
        cell.metrics,
        [{"step": k, "nfe_forward": 1000000 * k, "nfe_backward": 7, **costs} for k in range(1, 5)],
    )
    running = end_run(part, other, {2: {"a": 0.3, "b": 0.4, "c": 0.5}})
    running.write_status(WorkState.RUNNING, 2)
    row = {"step": 4, "prompt": "a", "image": 0, "reward": "brightness", "score": 0.9}
    append_rows(running.evaluations, [row])

    text = (record.write(suite) / NAME / record.RUNS).read_text()
    assert text.splitlines()[1] == f"base,,,done,{part.base},,0,0,0,0,0,"
    line = f'full_bp,0,0,done,{one.cell},"{json.dumps(one.settings)}"'.replace('{"', '{""')
    assert line.split(",")[:5] == text.splitlines()[2].split(",")[:5]
    assert text.splitlines()[2].endswith(",4,8,4000014,3,1.5,123456789")
    curves = table(suite, record.CURVES)
    points = curves[curves["reward"] == "brightness"]
    assert points["score"].tolist() == [
        0.2,
        0.4,
        round((1 / 3 + 1.1) / 3, 6),
        0.4,
    ]  # none of step 4 in the last
    assert points["forwards"].tolist() == [0, 2000014, 4000014, 0]
    assert set(curves["reward"]) == {"brightness", "diversity"}
    scores = table(suite, record.SCORES)
    assert list(scores) == ["prompt", "reward", "base", "full_bp 0"]  # the other is not done
    assert scores.count().tolist() == [6, 6, 6, 6]
    assert "\na,brightness,0.1,0.333333\n" in (suite.out / "record" / NAME / record.SCORES).read_text()
    before = {path: path.read_bytes() for path in (suite.out / "record").rglob("*.*")}
    record.write(suite)
    assert before == {path: path.read_bytes() for path in (suite.out / "record").rglob("*.*")}
    assert b"\r" not in b"".join(before.values())


def test_methods_that_need_a_gradient_sit_out_where_there_is_none(tmp_path: Path, plugin: None) -> None:
    path = written(tmp_path, reward="jpeg")
    done = here(
        "suite", "--methods", "full_bp,ddpo", "--workloads", path, "--dry-run", "--out", tmp_path / "o"
    )
    assert done.returncode == 0, done.stderr
    assert f"{NAME}: full_bp sits out: jpeg has no gradient to give" in done.stdout
    suite = planned(tmp_path, "full_bp", "ddpo", reward="jpeg")
    (part,) = suite.parts
    assert part.sits_out == ("full_bp",)
    assert {trial.method for trial in part.tuning.trials} == {"ddpo", "random-direction"}
    assert record.description(suite, [])["sits_out"] == {NAME: ["full_bp"]}


def test_a_dry_run_counts_what_is_left_and_writes_and_fetches_nothing(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = tuned(tmp_path, "full_bp")
    (part,) = suite.parts
    end_run(part, runs(suite, part)[0], {0: {"a": 0.5}})
    before = sorted(suite.out.rglob("*"))
    words = ("suite", "--methods", "full_bp", "--trials", 2, "--seeds", 3, "--dry-run")
    done = here(*words, "--workloads", tmp_path / f"{NAME}.yaml", "--out", suite.out)
    assert done.returncode == 0, done.stderr
    assert sorted(suite.out.rglob("*")) == before
    (line,) = [line.split() for line in done.stdout.splitlines() if line.startswith(f" {NAME} ")][:1]
    assert line[1:] == ["2", "8", "7", "6", "200", "1,200"]  # methods, trials, runs, left, of each, in all

    def fetched(need: object) -> None:
        raise AssertionError(f"{need} was fetched")

    monkeypatch.setattr(sources, "locate", fetched)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "nothing"))
    far = written(tmp_path, model="sd14", reward="jpeg", budget=20000)
    done = here("suite", "--methods", "ddpo", "--workloads", far, "--dry-run", "--out", tmp_path / "far")
    assert done.returncode == 0 and "python -m bench fetch --model sd14" in done.stdout, done.stderr
    done = here("tune", "--methods", "ddpo", "--workload", far, "--dry-run", "--out", tmp_path / "far")
    assert done.returncode == 0 and "python -m bench fetch --model sd14" in done.stdout, done.stderr
    assert not (tmp_path / "far").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", ","], "--methods: names no method"),
        (["--methods", "full-bp"], "unknown method 'full-bp'. Did you mean 'full_bp'?"),
        (["--methods", "doodl"], "method 'doodl' trains nothing: there is no budget"),
        (["--methods", "ddpo", "--workloads", ","], "--workloads: names no workload"),
        (["--methods", "ddpo", "--workloads", "emoji"], "unknown workload 'emoji'. Did you mean 'emoji-"),
        (["--methods", "ddpo", "--workloads", "no.yaml"], "no.yaml: cannot be read"),
        (
            ["--methods", "ddpo", "--workloads", "a/x.yaml,b/x.yaml"],
            "'x': two have this name: rename the file",
        ),
        (["--methods", "ddpo", "--workloads", "record.yaml"], "the folder of the tables has this name"),
        (["--methods", "ddpo", "--studies", "3", "--seeds", "2"], "give a seed for every study"),
        (["--methods", "ddpo", "--record-only", "--dry-run"], "say one of them"),
        (
            ["--methods", "ddpo", "--workloads", "emoji-jpeg", "--record-only"],
            "nothing was run there",
        ),
    ],
)
def test_a_mistake_is_told_in_one_message(tmp_path: Path, words: list[str], message: str) -> None:
    done = here("suite", "--out", tmp_path / "out", *words)
    assert done.returncode == 2 and message in done.stderr
    assert not (tmp_path / "out").exists()
