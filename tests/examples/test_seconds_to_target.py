"""Time to a held-out score: when a run counts as there."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.report.load import CellResults, Results
from examples import seconds_to_target


def run(method: str | None, scores: dict[int, float]) -> CellResults:
    """A finished cell with these held-out scores at these steps, 10 seconds for each step."""
    training = {"method": {"name": method}, "reward": {"name": "aes"}} if method else None
    steps = [*range(1, max(scores) + 1)]
    evals = [{"step": step, "reward": "aes", "score": score} for step, score in scores.items()]
    metrics = pd.DataFrame({"step": steps, "seconds": [10.0 * step for step in steps]})
    config: dict[str, Any] = {"training": training}
    return CellResults(str(method), Path(), "done", max(scores), "", config, {}, metrics, pd.DataFrame(evals))


def table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    cells = (run(None, {0: 4.5}), run("rlr", {2: 5.0, 4: 5.5, 6: 5.3}), run("ddpo", {2: 4.6, 4: 4.7, 6: 4.8}))
    monkeypatch.setattr(seconds_to_target, "load", lambda _: Results(Path(), {}, cells, ()))
    monkeypatch.setattr(sys, "argv", ["x", "results", *options])
    seconds_to_target.main()
    return [" ".join(line.replace("|", " ").split()) for line in capsys.readouterr().out.splitlines()]


def test_a_run_is_at_a_score_at_its_first_evaluation_that_has_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = table(monkeypatch, capsys, "--score", "5.4")
    assert lines[0] == "held-out aes: base 4.500, target 5.400"
    assert "rlr 1/1 40 4 5.3" in lines
    assert "ddpo 0/1 > 60 in 1 of 1 – 4.8" in lines


def test_a_gain_counts_from_the_base_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = table(monkeypatch, capsys, "--gain", "0.15")
    assert "rlr 1/1 20 2 5.3" in lines and "ddpo 1/1 40 4 4.8" in lines
