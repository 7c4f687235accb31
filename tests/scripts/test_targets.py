"""Targets by the rule of docs/protocol.md."""

import sys
from pathlib import Path

import pytest

from bench.base.layers import Tree
from bench.protocol.reading import CHOSEN, TRIALS, read_record
from scripts import targets
from tests.protocol.records import WORKLOADS, Row, change, change_yaml, maker

SOME = {name: WORKLOADS[name] for name in ("easy", "no-gradient")}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Base models of 0.6 and -5, but for the prompts' noise, and of 0.5 and -4 on tuning prompts; of the
    baselines' trials the best are 0.7 and -3.2."""
    folder = maker(workloads=SOME).write(tmp_path / "record")
    scores = {"easy": {"truncated_bp": 0.7, "ddpo": 0.55}, "no-gradient": {"ddpo": -3.2}}
    for name, base in (("easy", 0.5), ("no-gradient", -4.0)):

        def trials(rows: list[Row], name: str = name) -> None:
            for row in rows:  # the null row's are better, and do not count
                row["score"] = scores[name].get(row["method"], 9.0) - 0.01 * int(row["trial"])
            rows[0] |= {"state": "failed", "score": ""}

        def chosen(tree: Tree, base: float = base) -> None:
            tree["base"] = base

        change(folder / name / TRIALS, trials)
        change_yaml(folder / name / CHOSEN, chosen)
    return folder


def test_a_target_is_half_of_the_best_baselines_gain_above_the_base_model(
    record: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = read_record(record).tables
    monkeypatch.setattr(sys, "argv", ["targets", str(record)])
    targets.main()
    text = capsys.readouterr().out
    easy, hard = tables["easy"].base("clip"), tables["no-gradient"].base("jpeg")
    assert f"easy: base {easy:.5g} on reported prompts, 0.5 on tuning prompts;" in text
    assert f"0.7 (truncated_bp, study 1, trial 0), gain 0.2; target {easy + 0.1:.3g}" in text
    assert f"-3.2 (ddpo, study 1, trial 0), gain 0.8; target {hard + 0.4:.3g}" in text


def test_without_a_gain_or_the_base_model_there_is_no_target(record: Path) -> None:
    change_yaml(record / "easy" / CHOSEN, lambda tree: tree.pop("base"))
    change_yaml(record / "no-gradient" / CHOSEN, lambda tree: tree.update(base=-3.0))
    tables = read_record(record).tables
    old = targets.pilots(tables["easy"], "clip", ["truncated_bp", "ddpo"])
    assert (old.tuning, old.gain, old.target(1)) == (None, None, None)
    worse = targets.pilots(tables["no-gradient"], "jpeg", ["ddpo"])
    assert worse.gain == pytest.approx(-0.2) and worse.target(1) is None
    assert worse.target(-1) == pytest.approx(worse.reported - 0.1, rel=5e-3)  # where less is better
    assert targets.pilots(tables["easy"], "clip", ["ddpo"]).best != old.best


def test_the_baselines_are_methods_that_others_published() -> None:
    named = targets.BASELINES.split(",")
    assert len(set(named)) == 8 and not any(name.startswith(("rlr", "random")) for name in named)
