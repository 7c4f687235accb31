"""Which cells are pooled, and what a method shows that did not get to its end."""

import math
import shutil
from pathlib import Path

import pytest
import yaml

from bench.report.groups import Contest, contests
from bench.report.load import Results, load
from bench.report.summary import comparison, lines, steering_term
from tests.report import fake


def only(root: Path) -> Contest:
    found = contests(load(root))
    assert len(found) == 1
    return found[0]


def reconfigure(root: Path, method: str, section: str, **changes: object) -> None:
    """Change settings of a method's cells in place."""
    for path in root.glob(f"cells/{method}-*/config.yaml"):
        config = yaml.safe_load(path.read_text())
        (config["training"][section] if section in config["training"] else config[section]).update(changes)
        path.write_text(yaml.safe_dump(config))


@pytest.mark.slow
def test_seeds_of_a_method_form_one_group(results: Path) -> None:
    contest = only(results)
    assert [g.label for g in contest.groups] == ["ddpo", "rlr", "vader", "zo"]
    rlr = contest.groups[1]
    assert (len(rlr.cells), rlr.status, rlr.finished) == (2, "done", True)
    assert contest.gain(rlr, "clip").seeds == 2


@pytest.mark.slow
def test_failed_cells_appear_as_failed_and_not_as_zero(results: Path) -> None:
    row = next(r for r in lines(only(results)) if r.group.label == "zo")
    assert row.group.status == "failed"
    assert math.isnan(row.score.mean) and math.isnan(row.gains["clip"].mean) and math.isnan(row.cost.steps)


@pytest.mark.slow
def test_unfinished_cells_count_at_their_latest_evaluation_and_say_so(results: Path) -> None:
    row = next(r for r in lines(only(results)) if r.group.label == "ddpo")
    assert row.group.status == "running @30"
    assert row.cost.steps == 30 and row.score.units == len(fake.PROMPTS)


def test_finished_seeds_are_not_mixed_with_unfinished_ones(tmp_path: Path) -> None:
    root = fake.write(tmp_path / "r", ["rlr"], seeds=(0, 1), pictures=False)
    (next(root.glob("cells/rlr-tiny-clip-s1-*")) / "status.json").write_text('{"state": "running"}')
    group = only(root).groups[0]
    assert ([c.training["seed"] for c in group.cells], group.status) == ([0], "1/2 seeds")


def test_a_seed_from_before_a_setting_existed_is_a_seed_of_the_same_group(tmp_path: Path) -> None:
    root = fake.write(tmp_path / "r", ["rlr"], seeds=(0, 1), pictures=False)
    path = next(root.glob("cells/rlr-tiny-clip-s1-*")) / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["training"]["train"].update(graphs="staged", reward_chunk=None)
    path.write_text(yaml.safe_dump(config))
    assert [(g.label, len(g.cells)) for g in only(root).groups] == [("rlr", 2)]


def test_two_settings_of_a_method_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    root = fake.write(tmp_path / "r", ["rlr"], seeds=(0,), pictures=False)
    cell = next(root.glob("cells/rlr-*"))
    shutil.copytree(cell, cell.with_name("rlr-other"))
    config = yaml.safe_load((cell / "config.yaml").read_text())
    config["training"]["train"]["lr"] = 1e-3
    (cell / "config.yaml").write_text(yaml.safe_dump(config))
    assert [g.label for g in only(root).groups] == ["rlr (lr=0.0005)", "rlr (lr=0.001)"]


def test_cells_scored_on_other_pictures_are_not_paired(tmp_path: Path) -> None:
    root = fake.write(tmp_path / "r", ["rlr", "vader"], pictures=False)
    reconfigure(root, "vader", "eval", seed=99)
    with_base, without = sorted(contests(load(root)), key=lambda c: c.base is None)
    assert with_base.base and [g.label for g in with_base.groups] == ["rlr"]
    assert without.base is None and math.isnan(without.gain(without.groups[0], "clip").mean)


@pytest.mark.slow
def test_base_comes_first_then_the_best(results: Path) -> None:
    assert [r.group.label for r in lines(only(results))] == ["base", "vader", "ddpo", "rlr", "zo"]


def test_the_steering_term_is_the_one_with_the_largest_share_of_the_norms(results: Path) -> None:
    groups = {g.label: g for g in only(results).groups}
    name, share = steering_term(groups["rlr"].cells)
    assert name == "zo" and 0.5 < share < 0.9  # its norms are 14 of 21
    assert steering_term(groups["vader"].cells) == ("fo", 1.0)
    assert steering_term([])[0] == ""


@pytest.mark.slow
def test_every_pair_of_methods_is_compared_once_each_way(results: Path) -> None:
    table = comparison(only(results))
    pairs = {(r["method"], r["other"]): float(r["probability"]) for r in table.to_dict("records")}
    assert len(pairs) == len(table) == 4 * 3  # base, vader, ddpo, rlr
    assert pairs["vader", "rlr"] + pairs["rlr", "vader"] == pytest.approx(1)
    assert pairs["vader", "base"] > 0.9


def test_an_experiment_of_the_base_model_alone_is_shown(tmp_path: Path) -> None:
    contest = only(fake.write(tmp_path / "r", [], pictures=False))
    assert contest.groups == () and [r.is_base for r in lines(contest)] == [True]


def test_cells_that_never_started_make_no_contest(tmp_path: Path) -> None:
    (tmp_path / "cells" / "rlr-tiny").mkdir(parents=True)
    experiment: Results = load(tmp_path)
    assert contests(experiment) == [] and experiment.cells[0].status == "pending"
