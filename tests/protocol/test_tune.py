"""Search spaces, workloads and tuning."""

import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from bench.base import registry
from bench.base.errors import BenchError
from bench.base.files import read_rows
from bench.base.layers import Tree, dump_yaml, read_yaml, shipped
from bench.experiment.choices import load_method
from bench.experiment.method_files import shipped_config
from bench.experiment.search import LAW_OF_RATE, MOST_BESIDES, Law, draws, space
from bench.experiment.settings import Choice, TrainConfig
from bench.protocol import tune
from bench.protocol.workload import workload
from bench.run.store import ResultsDir
from bench.run.warm import WarmProcess
from tests.protocol import cells as cells_of
from tests.protocol.workloads import written
from tests.support.running import DOTS, PATIENCE, bench, environment, here, run_dots

SEARCHED = [name for name in registry.entries("method") if space(name)]


@pytest.mark.parametrize(
    ("law", "low", "middle", "high"),
    [
        (Law(log=(1e-4, 1e-2)), 1e-4, 1e-3, 1e-2),
        (Law(uniform=(0, 2)), 0.0, 1.0, 2.0),
        (Law(integer=(1, 3)), 1, 2, 3),
        (Law(choice=("a", "b", "c")), "a", "b", "c"),
    ],
)
def test_a_law_goes_from_end_to_end(law: Law, low: object, middle: object, high: object) -> None:
    assert [law.at(u) for u in (0.0, 0.5, 1 - 1e-9)] == [low, middle, high]


@pytest.mark.parametrize(
    ("law", "inside", "outside"),
    [
        (Law(log=(1e-4, 1e-2)), [1e-4, 3e-3, 0.01], [9e-5, 0.011, "0.001", True]),
        (Law(uniform=(0, 1.2345)), [0, 0.5, 1.23], [-0.1, 1.24, None]),
        (Law(integer=(1, 3)), [1, 3], [0, 4, 2.0, True]),
        (Law(choice=(1, "a", False, [2])), [1, "a", False, [2]], [0, "b", True, [3]]),
    ],
)
def test_a_law_holds_what_it_can_give(law: Law, inside: list[Any], outside: list[Any]) -> None:
    assert [value for value in inside if not law.holds(value)] == []
    assert [value for value in outside if law.holds(value)] == []
    assert all(law.holds(law.at(u / 50)) for u in range(50))


@pytest.mark.parametrize("wrong", [{}, {"log": (1, 2), "choice": (1,)}, {"log": (0, 1)}, {"integer": (3, 1)}])
def test_a_law_is_one_law_from_small_to_large(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Law(**wrong)


@pytest.mark.parametrize("name", SEARCHED)
def test_every_shipped_space_is_of_settings_that_the_method_has(name: str) -> None:
    """And of a learning rate and three more at most, the rate from the same law for all."""
    laws = space(name)
    assert 1 <= len(laws) <= 1 + MOST_BESIDES
    assert laws["train.lr"] == LAW_OF_RATE
    for tree in draws(name, 5, 0):
        TrainConfig.model_validate({"steps": 1, **tree.pop("train")})
        config = shipped_config(name, "tiny", tree)
        load_method(Choice(name=registry.find("method", name).base or name, config=config.model_dump()), 20)


def test_draws_are_the_same_each_time_and_of_their_own_in_every_study() -> None:
    rates = [[tree["train"]["lr"] for tree in draws("ddpo", 8, study)] for study in (0, 0, 1)]
    assert rates[0] == rates[1] != rates[2]
    assert len({*rates[0], *rates[2]}) == 16
    middle = space("ddpo")["train.lr"].at(0.5)
    assert sum(rate < middle for rate in rates[0]) == 4  # spread more evenly than by chance


@pytest.mark.parametrize("name", sorted(shipped("workloads")))
def test_shipped_workloads_can_be_read_and_tune_on_prompts_that_are_not_reported(name: str) -> None:
    _, load = workload(name)
    assert load.tuning.skip >= load.reported.skip + load.reported.prompts
    assert load.takes("random-direction") and load.takes("ddpo")


def test_methods_that_need_a_gradient_sit_out_where_the_reward_has_none() -> None:
    assert not workload("emoji-jpeg")[1].takes("truncated_bp")
    with pytest.raises(
        BenchError, match="'truncated_bp' needs the gradient of the reward, and jpeg has none"
    ):
        tune.plan("emoji-jpeg", ["ddpo", "truncated_bp"], 1, 1, None)


@pytest.mark.parametrize("section", ["model", "sampler"])
def test_methods_are_judged_on_the_chain_of_the_workload_and_not_on_the_models_own(
    tmp_path: Path, plugin: None, section: str
) -> None:
    """The test model's chain has two steps, which `rlr` with a block of two does not fit."""
    _, load = workload(str(written(tmp_path, reward="jpeg", settings={section: {"steps": 10}})))
    assert (load.takes("rlr"), load.takes("rlr-ho")) == (False, True)
    _, load = workload(str(written(tmp_path, reward="jpeg")))
    with pytest.raises(BenchError, match=r"rlr\.h is 2, but only 1 steps"):
        load.takes("rlr")


def test_tuning_on_reported_prompts_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, tuning={"skip": 2, "prompts": 3})
    with pytest.raises(
        BenchError, match=r"held-out prompts that are reported: set tuning\.skip to 3 or more"
    ):
        workload(str(path))


KILLS = (0, 1, 6, 17, 29)  # after so many lines of all metrics.jsonl; 0: as soon as cells are planned


@pytest.mark.slow
def test_a_tuning_that_was_killed_again_and_again_ends_in_the_same_trials_and_choices(tmp_path: Path) -> None:
    path = written(tmp_path, budget=1200, settings={"model": {"steps": 8}})
    words = ["tune", "--methods", "truncated_bp,ddpo", "--workload", str(path), "--trials", "4", "--jobs=1"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = bench(*words, "--out", whole)
    assert done.returncode == 0, done.stderr
    assert _lines_of(whole) > 2 * max(KILLS)  # so that kills fall on the way
    for lines in KILLS:
        _kill_after(lines, [*words, "--out", str(killed)], killed, tmp_path / "output")
        assert not (killed / tune.CHOSEN).exists()
    done = bench(*words, "--out", killed)
    assert done.returncode == 0, done.stderr
    for name in (tune.CHOSEN, tune.RECORD):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    trials = pd.read_csv(killed / tune.RECORD)
    assert trials.groupby("method").size().to_dict() == {"truncated_bp": 4, "ddpo": 4}
    assert min(trials["seed"]) >= tune.FIRST_SEED and set(trials["state"]) == {"done"}
    best = trials.loc[trials.groupby("method")["score"].idxmax()].set_index("method")
    content = read_yaml(killed / tune.CHOSEN)
    chosen = content["methods"]
    assert {name: lines[0]["trial"] for name, lines in chosen.items()} == best["trial"].to_dict()
    (base,) = (cell for cell in ResultsDir(killed).cells() if cell.id.startswith("base-"))
    rows = [row["score"] for row in read_rows(base.evaluations) if row["reward"] == "brightness"]
    assert len(rows) == 8 and content["base"] == pytest.approx(sum(rows) / 8)

    tuned = ("--tuned", killed, "--steps", 1, "--set", "model.steps=8")
    done = run_dots(tmp_path / "used", "--methods", "truncated_bp", *tuned)
    assert done.returncode == 0, done.stderr
    (cell,) = (c for c in ResultsDir(tmp_path / "used").cells() if c.id.startswith("truncated_bp"))
    training, settings = cell.config().training, chosen["truncated_bp"][0]["settings"]
    assert training is not None
    assert (training.train.lr, training.method.config["k"]) == (settings["train"]["lr"], settings["k"])
    done = here("run", "--methods", "push", "--model", DOTS, "--tuned", killed)
    assert done.returncode == 2 and "no settings of push were chosen there" in done.stderr


def _lines_of(out: Path) -> int:
    """How far all trials together are."""
    logs = [cell.metrics for cell in ResultsDir(out).cells()]
    return sum(log.read_bytes().count(b"\n") for log in logs if log.exists())


def _kill_after(lines: int, words: list[str], out: Path, output: Path) -> None:
    """Start the tuning, and kill it and all that it started when its trials are that far."""
    process = WarmProcess(words, output, environment())
    deadline = time.monotonic() + PATIENCE
    while not ResultsDir(out).cells() or _lines_of(out) < lines:
        assert process.poll() is None and time.monotonic() < deadline, output.read_text()
        time.sleep(0.01)
    process.kill()
    while process.poll() is None:
        time.sleep(0.01)


def test_settings_that_were_tuned_for_something_else_are_taken_with_a_caution(
    tmp_path: Path, plugin: None
) -> None:
    tuning = tune.plan(str(written(tmp_path)), ["push"], 1, 1, tmp_path / "tuned")
    cells_of.end(tuning.experiment.out, tuning.trials[0].combination, {1: {"a": 0.5}}, "brightness")
    tune.write(tuning)
    words = ("run", "--methods", "push", "--model", DOTS, "--tuned", tmp_path / "tuned", "--dry-run")
    same = ("--reward", "brightness", "--prompts", "emoji")
    done = here(*words, *same, "--budget", 200)
    assert (done.returncode, "caution" in done.stderr) == (0, False), done.stderr
    done = here(*words, "--reward", "colourfulness,brightness", "--prompts", "emoji", "--steps", 3)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"caution: --tuned {tmp_path / 'tuned'}: tuned with reward brightness, budget 200, and"
    )
    assert "this run has reward colourfulness and brightness, budget none:" in line
    old = {key: value for key, value in tune.chosen_tree(tuning).items() if key not in ("prompts", "budget")}
    (tmp_path / "tuned" / tune.CHOSEN).write_text(dump_yaml(old))
    done = here(*words, *same, "--steps", 3)
    assert (done.returncode, "caution" in done.stderr) == (0, False), done.stderr


def test_a_trial_that_diverges_is_a_miss_and_a_study_of_misses_chooses_nothing() -> None:
    lines: list[Tree] = [{"trial": 0, "score": None}, {"trial": 1, "score": 0.2}, {"trial": 2, "score": 0.1}]
    assert tune._best(lines, "clip") == [lines[1]]
    assert tune._best(lines[:1], "clip") == []
