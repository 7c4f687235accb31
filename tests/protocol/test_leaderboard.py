"""The leaderboard's page, figures and command."""

import math
import re
import shutil
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from bench.cli import leaderboard as command
from bench.protocol.leaderboard import leaderboard
from bench.protocol.reading import RUNS, read_record
from bench.report.groups import NULL
from bench.report.stats import holm
from tests.protocol.records import WORKLOADS, Made, Row, change, maker, unscored
from tests.support.running import here


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two records: three methods, and another one of somebody else."""
    folder = tmp_path_factory.mktemp("records")
    maker().write(folder / "ours")
    maker(methods={"reinforce": Made({"clip": 0.12, "jpeg": 0.3}), NULL: Made({})}, noise=3).write(
        folder / "mine"
    )
    return folder


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workloads of the made-up records ship."""
    monkeypatch.setattr(import_module("bench.protocol.workload"), "all_workloads", lambda: WORKLOADS)


@pytest.mark.slow
def test_over_workloads_the_fastest_comes_first_and_claims_are_counted(written: Path) -> None:
    board = leaderboard([read_record(written / "ours")], WORKLOADS)
    found = {total.label: total for total in board.totals}
    assert [total.label for total in board.totals] == [
        "truncated_bp",
        "ddpo",
        NULL,
    ]  # claims decide between equals
    # easy: truncated_bp alone. no-gradient: ddpo alone. hard: nobody.
    assert board.unsolved == ("hard",) and board.targetless == ()
    assert {name: (one.integral, one.solved) for name, one in found.items()} == {
        "truncated_bp": (0.5, 1),
        "ddpo": (0.5, 1),
        NULL: (0.0, 0),
    }
    # ddpo's miss is drawn twice or more in a quarter of the draws: then nobody solves no-gradient, either.
    assert (found["ddpo"].held, found["truncated_bp"].held) == ((0.0, 0.5), (0.5, 1.0))
    assert found["truncated_bp"].improved == 2  # it sits one out
    assert found["ddpo"].improved == 0  # one of its runs is a miss


@pytest.mark.slow
def test_claims_of_a_table_are_adjusted_together_whichever_record_they_are_from(written: Path) -> None:
    board = leaderboard([read_record(written / name) for name in ("ours", "mine")], WORKLOADS)
    table = board.tables[0]
    claimed = [s for s in table.standings if s.claim.claims]
    assert {s.label for s in claimed} == {"truncated_bp", "reinforce"}
    assert [s.p for s in claimed] == holm([s.claim.p for s in claimed])
    assert {s.label for s in table.standings if s.null} == {f"{NULL} (ours)", f"{NULL} (mine)"}
    assert [s.gain.mean for s in table.standings] == sorted(
        (s.gain.mean for s in table.standings), reverse=True
    )


def test_a_method_that_stands_still_gains_nothing_by_a_null_row_that_fell(tmp_path: Path) -> None:
    methods = {"ddpo": Made({}), "reinforce": Made({"clip": -0.2}), NULL: Made({"clip": -0.1})}
    made = maker(methods=methods, workloads={"easy": WORKLOADS["easy"]})
    (table,) = leaderboard([read_record(made.write(tmp_path / "record"))], WORKLOADS).tables
    found = {s.method: s for s in table.standings}
    assert found["ddpo"].over_null.mean > 0.05 and found["ddpo"].over_null.p < 0.001
    assert found["ddpo"].p > 0.05 and not table.improved(found["ddpo"])
    assert found["reinforce"].p < 0.01 and found["reinforce"].claim.mean < 0  # a loss
    assert found["reinforce"].claim.p == max(found["reinforce"].gain.p, found["reinforce"].over_null.p)
    assert not table.improved(found["reinforce"]) and math.isnan(found[NULL].p)


def test_workloads_are_counted_with_p_adjusted_for_the_claims_of_all_of_them(tmp_path: Path) -> None:
    methods = {
        "truncated_bp": Made({"clip": 0.2}, sits_out=("no-gradient",)),
        "ddpo": Made({"clip": 0.008, "jpeg": 0.2}, of_run=0.003),
        NULL: Made({}),
    }
    board = leaderboard([read_record(maker(methods=methods).write(tmp_path / "record"))], WORKLOADS)
    lines = [(table, s) for table in board.tables for s in table.standings if s.claim.claims]
    assert len(lines) == 5
    together = holm([s.claim.p for _, s in lines])
    counted = Counter(s.label for (_, s), p in zip(lines, together, strict=True) if p < 0.05)
    within = Counter(s.label for table, s in lines if table.improved(s))
    assert {total.label: total.improved for total in board.totals} == {NULL: 0, **counted}
    assert (within["ddpo"], counted["ddpo"]) == (3, 1)  # two of its claims hold in their own tables alone


@pytest.mark.slow
def test_without_targets_there_are_no_times_and_no_profiles(written: Path) -> None:
    loads = {name: load.model_copy(update={"target": None}) for name, load in WORKLOADS.items()}
    board = leaderboard([read_record(written / "ours")], loads)
    assert board.targetless == tuple(WORKLOADS) and not any(total.ratios for total in board.totals)
    assert not any(s.times for table in board.tables for s in table.standings)


@pytest.mark.slow
def test_the_page_and_its_figures_are_the_same_bytes_each_time(
    written: Path, tmp_path: Path, shipped: None
) -> None:
    outs = [tmp_path / name / "docs" / "leaderboard.md" for name in ("one", "two")]
    for out, names in zip(outs, (("ours", "mine"), ("mine", "ours")), strict=True):
        done = here("leaderboard", *(written / name for name in names), "--out", out)
        assert done.returncode == 0, done.stderr
    files = sorted(path.relative_to(outs[0].parent) for path in outs[0].parent.rglob("*") if path.is_file())
    names = {f"images/leaderboard-{name}.png" for name in ("profile", *WORKLOADS)}
    assert {str(path) for path in files} == {"leaderboard.md", *names}
    for path in files:
        assert (outs[0].parent / path).read_bytes() == (outs[1].parent / path).read_bytes()
    text = outs[0].read_text()
    assert set(re.findall(r"\]\((images/[^)]*)\)", text)) == names
    assert re.search(
        r"\| truncated_bp† +\| +4 \| +\+0\.20\d+ ± .*\*\* \| <0\.001 \| +4 of 4 \| +2\.\dk \| +2\.\dk", text
    )
    assert re.search(r"\| ddpo +\| +3 of 4 \|.* – \| +0 of 4 \| +∞ \| +(\S+k … )?∞ \|", text)
    assert "nobody reaches the target of hard" in text
    assert "these sit out: truncated_bp." in text
    assert "| 4 of 4, step 9 |" in text and "k=5" in text and "torch = 2.13.0" in text
    assert "--methods truncated_bp,ddpo --workloads easy,hard,no-gradient" in text
    assert "Incomplete" not in text
    prose = [line for line in text.splitlines() if not line.startswith(("|", "!", "    "))]
    assert max(map(len, prose)) <= 140


@pytest.mark.slow
def test_a_partial_record_is_shown_and_marked(written: Path, tmp_path: Path, shipped: None) -> None:
    record = shutil.copytree(written / "ours", tmp_path / "ours")
    shutil.rmtree(record / "hard")

    def lose(rows: list[Row]) -> None:
        rows[:] = [row for row in rows if (row["method"], row["seed"]) != ("truncated_bp", "3")]

    change(record / "easy" / RUNS, lose)
    unscored(record / "easy", "truncated_bp", 3)
    done = here("leaderboard", record, "--out", tmp_path / "page.md")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page.md").read_text()
    assert "**Incomplete:** `ours`" in text
    assert re.search(r"\| truncated_bp +\| +3 of 4 \|.* – \| +3 of 3 \|", text)  # neither claimed nor marked
    done = here("leaderboard", record, "--check")
    assert done.returncode == 1
    assert f"{record}/easy/runs.csv: truncated_bp, seed 3 is not there: the same" in done.stdout


@pytest.mark.slow
def test_a_record_against_the_protocol_is_not_written(written: Path, tmp_path: Path, shipped: None) -> None:
    record = shutil.copytree(written / "ours", tmp_path / "ours")
    change(record / "easy" / RUNS, lambda rows: rows[1].update(forwards=6700))
    done = here("leaderboard", record, "--out", tmp_path / "page.md")
    assert done.returncode == 1 and not (tmp_path / "page.md").exists()
    assert "spent 6700 forward equivalents" in done.stdout and "nothing is written" in done.stdout


@pytest.mark.slow
def test_a_check_of_a_good_record_compares_it_with_those_that_are_there(
    written: Path, tmp_path: Path, shipped: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "REFERENCE", written)
    done = here("leaderboard", "--check", written / "ours")
    assert done.returncode == 0 and "nothing is against the protocol" in done.stdout
    other = maker()
    other.base["clip"] = 0.65
    done = here("leaderboard", "--check", other.write(tmp_path / "theirs"))
    assert done.returncode == 1
    assert "the base model's clip is" in done.stdout and str(written / "mine") in done.stdout


def test_a_folder_without_a_record_and_two_of_one_name_are_refused(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "REFERENCE", tmp_path)
    assert "no folder in it has a suite.yaml" in here("leaderboard").stderr
    assert f"{tmp_path}: no suite.yaml" in here("leaderboard", tmp_path).stderr
    assert "two records are called 'ours'" in here("leaderboard", written / "ours", written / "ours").stderr
