"""The planner: sizes, Eq. 8, what a gradient profile says, and the command's last line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench.base import units
from bench.base.errors import BenchError
from bench.cli.main import app
from bench.experiment.settings import CellConfig
from bench.measure.cost import earlier, eq8, plan_report, planner
from bench.measure.cost.planner import Candidate, Facts, JointCost
from bench.run.forecast import memory_of
from bench.run.gpu_hours import Speedometer
from tests.support.pipelines import pipeline_dir


def test_sizes_in_decimal_and_binary_units_are_told_apart() -> None:
    assert units.size("40GB", "--budget") == 40 * 10**9
    assert units.size("1.5gib", "--budget") == 3 * 2**29


@pytest.mark.parametrize("text", ["40", "GB", "0GB", "forty GB", "-1GB", "40kB"])
def test_a_budget_in_another_format_is_one_message_that_names_the_flag(text: str) -> None:
    with pytest.raises(BenchError, match="--budget"):
        units.size(text, "--budget")


def test_eq8_first_term_with_the_papers_coefficients_is_3_at_40_gigabytes_and_2_at_30() -> None:
    found = [eq8.first_term(b, eq8.PAPER_B_H, eq8.PAPER_B_Z, 50) for b in (30e9, 40e9)]
    assert found == [2, 3]


def test_eq8_second_term_is_24_while_its_surrogate_is_least_at_49() -> None:
    assert eq8.second_term(50, 0.0, 1.0) == 24
    assert eq8.minimiser(50, 0.01, 1.0) == 49


def _facts(graphs: str, profile: earlier.Variances | None, base: int = 20) -> Facts:
    fits = -1 if base > 40 else 2
    return Facts(40, 50, 49, graphs, 0.0, (JointCost(False, base, 8.0, fits),), profile)


def _row(h: int, variance: float, seconds: float, se: float = 0.0) -> earlier.AtH:
    return earlier.AtH(f"rlr-h{h}", h, variance, se, seconds)


def test_without_a_profile_memory_bounds_h_only_where_graphs_are_joint() -> None:
    for graphs, h in (("joint", 2), ("staged", 49)):
        known = _facts(graphs, None)
        assert planner.decide(known, planner.answers(known)) == h


def test_a_profile_decides_by_variance_times_seconds_among_the_h_that_fit() -> None:
    rows = (_row(1, 10, 1), _row(2, 6, 2), _row(4, 1, 4))
    profile = earlier.Variances("tiny", 8, rows, 0.1, 1.0)
    for graphs, h in (("joint", 1), ("staged", 4)):
        known = _facts(graphs, profile)
        assert planner.decide(known, planner.answers(known)) == h


def test_rivals_are_rows_within_two_standard_errors() -> None:
    profile = earlier.Variances(
        "tiny", 8, (_row(1, 10, 1, 2), _row(2, 12, 1, 2), _row(3, 90, 1, 2)), None, None
    )
    assert [row.h for row in profile.rivals()] == [2]


def test_joint_graphs_that_never_fit_are_an_error_that_says_what_to_do() -> None:
    known = _facts("joint", None, base=50)
    with pytest.raises(BenchError, match="staged"):
        planner.decide(known, planner.answers(known))


def test_the_choice_is_the_least_work_that_fits() -> None:
    ways = [Candidate({}, 50, 0, "", 1e12), Candidate({}, 30, 20, "", 1e12), Candidate({}, 10, 0, "", 1.3e12)]
    assert planner.chosen(ways, 40) is ways[1]
    assert planner.chosen(ways, 20) is ways[2]
    assert planner.chosen(ways, 5) is None


def test_every_choice_fills_each_column_of_its_table() -> None:
    settings = {"model.gradient_checkpointing": True, "train.micro_batch": 4, "train.reward_chunk": 1}
    stream = io.StringIO()
    ways = [Candidate(settings, 50, 0, "", 1e12)]
    plan_report._choices(Console(file=stream, width=120), ways, ways[0], 2, 40)
    table = stream.getvalue().splitlines()
    header, line = (next(text for text in table if word in text) for word in ("checkpointing", "│"))
    assert header.count("fits") == 1
    assert len(line.split("│")) == len(header.split("┃")) == 10
    assert line.split("│")[-2].strip() == "no"


def test_a_gradient_profiles_stds_are_per_step(tmp_path: Path) -> None:
    head = "method,model,reward_name,at,seed"
    (tmp_path / "gradients.csv").write_text(
        f"{head},variance_rel,variance_se,seconds,batch\n"
        "rlr = rlr-h2,tiny,clip,init,0,50,5,2,8\nzo,tiny,clip,init,0,9,1,1,8\n"
    )
    (tmp_path / "gradients_terms.csv").write_text(
        f"{head},term,mean,variance,rms\n"
        "rlr = rlr-h2,tiny,clip,init,0,ho,0,8,1\nrlr = rlr-h2,tiny,clip,init,0,zo,0,153,1\n"
    )
    found = earlier.variances(tmp_path, "rlr", "tiny", 20, own=2)
    assert found is not None
    assert [(row.h, row.cost) for row in found.rows] == [(2, 100.0)]
    assert (found.v_h, found.v_z) == (2.0, 3.0)
    assert earlier.variances(tmp_path, "rlr", "sd14", 20, own=2) is None


def test_a_method_without_blocks_has_no_h_to_plan() -> None:
    with pytest.raises(BenchError, match="no half-order block"):
        planner.cell("zo", "tiny", 4, ())


@pytest.mark.slow
def test_plan_prints_h_on_its_last_line_and_b_z_is_no_part_of_b_h(tmp_path: Path) -> None:
    model = ["--model", f"path:{pipeline_dir()}", "--set", "model.steps=4", "--batch", "2"]
    found = ["--gradients", str(tmp_path), "--profiles", str(tmp_path)]
    out = CliRunner().invoke(app, ["plan", "--budget", "1GB", "--deadline", "1h", *model, *found])
    assert out.exit_code == 0, out.output
    assert out.stdout.rstrip().splitlines()[-1] == "h* = 3"
    assert "seconds of a step are not known" in " ".join(out.output.split())


def _simulated(peak: int) -> type:
    """Stands for the simulator: everything takes the same, and simulating takes no time."""

    class Simulated:
        def __call__(self, config: CellConfig) -> SimpleNamespace:
            return SimpleNamespace(device=peak, host=0, peak_stage="", flops=1e12)

    return Simulated


@pytest.mark.silent
def test_plan_is_never_silent_and_shows_memory_before_the_last_simulation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(plan_report, "Simulator", _simulated(10**6))
    monkeypatch.setattr(plan_report, "_memory", lambda *_: shown.append("memory"))
    monkeypatch.setattr(plan_report, "_answers", lambda *_: shown.append("answers"))
    monkeypatch.setattr(plan_report, "progress", lambda text: shown.append(text))
    out = CliRunner().invoke(app, ["plan", "--budget", "1GB", "--model", "tiny"])
    assert out.exit_code == 0, out.output
    assert out.stderr.startswith("… plan: looking for method and model")
    assert out.stdout.rstrip().splitlines()[-1].startswith("h* = ")
    simulations = [n for n, text in enumerate(shown) if text.startswith("simulation")]
    assert simulations[0] == 0 and len(simulations) > 8
    assert shown.index("memory") < shown.index("answers") < simulations[-1]


def test_plan_as_json_is_one_document_with_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_report, "Simulator", _simulated(10**6))
    words = ["plan", "--budget-memory", "1GB", "--model", "tiny"]
    printed = CliRunner().invoke(app, words)
    out = CliRunner().invoke(app, [*words, "--json"])
    assert out.exit_code == 0, out.output
    found = json.loads(out.stdout)
    assert printed.stdout.rstrip().splitlines()[-1] == f"h* = {found['h']}"
    assert found["chosen"] in found["ways"] and found["facts"]["budget"] == 10**9
    assert found["run_with"] in " ".join(printed.stdout.split())


@pytest.mark.silent
def test_plan_whose_budget_nothing_fits_is_an_error_and_not_an_h(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_report, "Simulator", _simulated(10**9))
    out = CliRunner().invoke(app, ["plan", "--budget", "1MB", "--model", "tiny"])
    assert isinstance(out.exception, BenchError)
    assert "the least memory is 1.0 GB, the budget 0.001 GB" in str(out.exception)
    assert "h* =" not in out.stdout and "-1" not in out.stdout.split("warning:")[0].replace("-1)", "")


def test_a_plan_says_gpu_hours_of_what_it_chose_where_a_table_knows_the_model(tmp_path: Path) -> None:
    config = planner.cell("rlr", "sd14", 8, ("train.steps=100",))
    settings = {"model.gradient_checkpointing": False, "train.micro_batch": 4, "train.reward_chunk": None}
    text = plan_report.gpu_hours(config, Candidate(settings, 0, 0, "", 1.0), 5, tmp_path)
    off = planner.changed(config, 5, gradient_checkpointing=False)
    assert str(Speedometer().hours(off)) in text and "100 steps" in text and "~" in text
    whole = plan_report.whole_cell(config, Candidate(settings, 0, 0, "", 1.0), 5)
    assert str(memory_of(off, gpu=True)) in whole
    assert plan_report.gpu_hours(planner.cell("rlr", "tiny", 8, ()), None, 5, tmp_path) == ""
