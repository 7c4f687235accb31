"""The runs that the script compares."""

import sys
from pathlib import Path

import pytest

from bench.base.layers import Tree
from bench.experiment.resolve import resolve
from bench.experiment.settings import CellConfig, Training
from bench.protocol.reading import Run
from bench.report.stats import Estimate
from scripts import half_order

SETTINGS: dict[str, Tree] = {
    "rlr-balanced": {"train": {"lr": 0.0011}, "fo_steps": 2},
    "rlr-ho": {"train": {"lr": 0.0064, "samples_per_prompt": 2}, "until": 0.3},
}


@pytest.mark.parametrize("method", SETTINGS)
def test_a_method_and_its_control_differ_in_the_estimator_alone(method: str, tmp_path: Path) -> None:
    tuned = [
        Run(line=2 + seed, method=method, seed=seed, settings=SETTINGS[method], state="done")
        for seed in (0, 3)
    ]
    what, pairs = half_order.planned("emoji-colour", method, tuned, tmp_path)
    cells = {cell.id: cell.config for one in what.combinations for cell in resolve(one)}
    assert len(pairs) == 2 and set(sum(pairs, ())) <= set(cells)
    for (one, other), seed in zip(pairs, (0, 3), strict=True):
        ours, theirs = _what_is_the_same(cells[one]), _what_is_the_same(cells[other])
        assert ours == theirs and ours["seed"] == seed and ours["budget"] == 3000
        assert method.startswith(_training(cells[one]).method.name)
        assert _training(cells[other]).method.name == half_order.CONTROLS[method][0]
    own, control = (_training(cells[cell]).method.config for cell in pairs[0])
    if method == "rlr-balanced":
        assert control["k"] == own["fo_steps"] == 2
    else:
        assert control["baseline"] == own["baseline"] == "loo_prompt"


def _training(config: CellConfig) -> Training:
    assert config.training is not None
    return config.training


def _what_is_the_same(config: CellConfig) -> Tree:
    """Everything but the estimator: model, prompts, evaluation, and the training loop."""
    tree = config.model_dump(mode="json")
    training = tree["training"]
    del training["method"]
    train = training["train"]
    del train["micro_batch"]  # how many samples at a time, which no number depends on
    return {"seed": training["seed"], "budget": train["budget"], "rest": tree}


def test_all_pairs_are_in_one_aligned_table_and_adjusted_together() -> None:
    pairs = [("rlr-balanced", "truncated_bp"), ("rlr-ho", "reinforce")]
    found = [
        (pair, name, Estimate(scale, scale / 4, scale / 2, scale * 1.5, p, 32, 4))
        for pair, name, scale, p in zip(
            (pairs[0], pairs[0], pairs[1]),
            ("clip", "colour", "clip"),
            (0.01, 50.0, 0.02),
            (0.01, 0.04, 0.03),
            strict=True,
        )
    ]
    header, *lines = half_order.table(pairs, found)
    assert [line.split()[0] for line in lines] == ["rlr-balanced", "clip", "colour", "rlr-ho", "clip"]
    rows = [line for line in lines if line.startswith("  ")]
    assert {len(line) for line in (header, *rows)} == {len(header)} and len(header) <= 80
    assert [row.split()[-2:] for row in rows] == [["0.010", "0.030"], ["0.040", "0.060"], ["0.030", "0.060"]]


def test_a_record_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["half_order", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        half_order.main()
    assert stopped.value.code == 2 and "no suite.yaml" in capsys.readouterr().err
