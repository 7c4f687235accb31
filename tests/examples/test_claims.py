"""What every claim's script finds, at a reduced size: its verdicts, and numbers in standard errors."""

from pathlib import Path

import pytest
import torch

import bench.engine.rollout
from examples import measure
from examples.claims import (
    __main__,
    convergence,
    eq6,
    eq8,
    prop6_1,
    prop6_2,
    start_law,
    theorem6_3,
    unbiased_or_not,
    variance_h,
)
from examples.measure import Number, Outcome
from tests.support import fast_streams

LARGE = 1024  # samples of a batch: for the same number of samples, fewer batches take less time


@pytest.fixture(autouse=True)
def _fast_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.engine.rollout, "normal", fast_streams.normal)


def refuted(outcome: Outcome) -> list[str]:
    """Statements that were found false."""
    return [what for what, true in outcome.checks.items() if not true]


def test_every_claim_is_listed_with_a_sentence() -> None:
    known = __main__.claims()
    assert len(known) == 9
    assert all(sentence.endswith(".") for sentence in known.values())


@pytest.mark.slow
def test_command_prints_tables_and_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    __main__.main(["eq8", "--samples", "10"])
    out = capsys.readouterr().out
    assert "eq8 first term" in out
    assert "Verdict: " in out
    __main__.main([])
    assert "theorem6_3" in capsys.readouterr().out


def test_plot_of_a_claim_without_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        __main__.main(["eq8", "--plot", "x.png"])
    assert "eq8 has no plot" in capsys.readouterr().err


@pytest.mark.slow
def test_eq_6_read_literally_counts_the_last_step_twice() -> None:
    outcome = eq6.run(30_000)
    assert not refuted(outcome)
    literal, excluded = outcome.tables[0]
    assert literal.relative_bias.value > 0.1
    assert excluded.relative_bias.error < 0.05


@pytest.mark.slow
def test_prop_6_1_holds_bias_of_truncation_is_what_it_drops() -> None:
    outcome = prop6_1.run(8_000)
    assert not refuted(outcome)
    assert all(row.relative_bias.error < 0.03 for row in outcome.tables[0])


@pytest.mark.slow
def test_prop_6_2_is_not_universal() -> None:
    outcome = prop6_2.run(1_200)
    assert refuted(outcome) == ["Var(FO) ≤ Var(likelihood ratio) for every omega"]
    slow, _, fast = outcome.tables[0]
    assert slow.FO_exact < slow.LR_exact
    assert fast.FO_exact == pytest.approx(200, rel=0.01)
    assert fast.LR_exact == pytest.approx(0.5, rel=0.01)


@pytest.mark.slow
def test_theorem_6_3_holds_with_zo_and_not_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(theorem6_3, "SIZE", LARGE)
    outcome = theorem6_3.run(20 * LARGE)
    assert not refuted(outcome)
    assert all(row.bias.error < 0.05 for row in outcome.tables[0])


@pytest.mark.slow
def test_eq_8_does_not_minimise_eq_7() -> None:
    outcome = eq8.run(200)
    assert refuted(outcome) == [
        "Eq. 8's second term is the vertex of J.6's a and b",
        "Eq. 8's first term gives the recommended h",
        "ZO's memory grows with T",
    ]
    _, budgets, memory = outcome.tables
    assert [b.eq8_first_term for b in budgets] == [2, 3]
    assert all(m.ZO_every_step == 0 for m in memory)
    assert memory[-1].FO_in_one_graph > 3 * memory[0].FO_in_one_graph


def test_surrogate_of_eq_7_is_the_square_of_the_sum_of_standard_deviations() -> None:
    for h in range(5):
        assert eq8.surrogate(h, 6, 0.3, 2.0) == pytest.approx(((h + 1) * 0.3 + (5 - h) * 2.0) ** 2)


@pytest.mark.slow
def test_variance_depends_on_h_through_the_number_of_zo_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variance_h, "LENGTHS", (0, 1, 4, 11))
    outcome = variance_h.run(480)
    assert refuted(outcome) == ["the HO term's own variance decreases with h"]


@pytest.mark.slow
def test_every_law_of_the_start_is_unbiased_for_a_target_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_law, "SIZE", LARGE)
    outcome = start_law.run(20 * LARGE)
    assert refuted(outcome) == ["some law's target is the deployed chain's"]
    assert all(sum(row.p) == pytest.approx(1, abs=0.01) for row in outcome.tables[0])


@pytest.mark.slow
def test_convergence_is_within_the_bound_and_truncation_plateaus(tmp_path: Path) -> None:
    outcome = convergence.run(64)
    assert not refuted(outcome)
    convergence.plot(outcome, tmp_path / "picture")
    assert {f.name for f in tmp_path.iterdir()} == {"picture.png", "picture.svg"}


@pytest.mark.slow
def test_truncation_wins_early_and_loses_late(tmp_path: Path) -> None:
    outcome = unbiased_or_not.run(480)
    assert not refuted(outcome)
    unbiased_or_not.plot(outcome, tmp_path / "picture.png")
    assert {f.name for f in tmp_path.iterdir()} == {"picture.png", "picture.svg"}


def test_verdict_can_say_the_opposite() -> None:
    assert "it holds: NO" in str(Outcome([[Number(1.0)]], {"it holds": False}))


def test_bias_is_found_where_it_is_and_not_elsewhere() -> None:
    found = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centre = torch.tensor([3.0, 0.0], dtype=torch.float64)
    assert not measure.bias(found + centre, centre).found
    assert measure.bias(found + centre, centre + 0.4).found


def test_number_is_printed_to_the_precision_of_its_error() -> None:
    assert str(Number(1.23456, 0.01)) == "1.235 ± 0.010"
    assert str(Number(506609.1, 44768.0)) == "506609 ± 44768"
    assert str(Number(0.25)) == "0.25"
