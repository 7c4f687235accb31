"""One cell in several results directories."""

import json
import shutil
from pathlib import Path

import pytest

from bench.base.errors import BenchError
from bench.base.files import Record, read_rows, write_rows
from bench.run.store import WorkDir, WorkState
from bench.run.twins import by_id, choose, differs

ROWS: list[Record] = [
    {"step": n, "reward_mean": 0.5 + n / 100, "seconds": float(n), "memory": 10**9} for n in range(1, 5)
]


def cell(path: Path, rows: list[Record], state: WorkState = WorkState.DONE) -> WorkDir:
    """A directory of work with a log and a status."""
    path.mkdir(parents=True)
    write_rows(path / "metrics.jsonl", rows)
    made = WorkDir(path)
    made.write_status(state, len(rows))
    return made


def test_seconds_and_memory_make_no_difference(tmp_path: Path) -> None:
    slower = [{**row, "seconds": 9.0, "memory": 1} for row in ROWS]
    one, other = cell(tmp_path / "a", ROWS), cell(tmp_path / "b", slower)
    assert differs(one, other) == ""
    assert choose([one, other]) == choose([one, other]) and choose([one, other]).others == (other,)
    assert choose([one, other]).directory == one and choose([other, one]).directory == other


def test_the_first_number_that_differs_is_named(tmp_path: Path) -> None:
    one = cell(tmp_path / "a", ROWS)
    other = cell(tmp_path / "b", [*ROWS[:2], {**ROWS[2], "reward_mean": 0.9}, ROWS[3]])
    found = choose([one, other])
    assert found.directory == one and found.others == ()
    assert found.conflicts == ((other, "metrics.jsonl, line 3: reward_mean is 0.53 and 0.9"),)


@pytest.mark.parametrize("ended", [WorkState.DONE, WorkState.PREEMPTED])
def test_of_the_same_numbers_those_that_go_further_count(tmp_path: Path, ended: WorkState) -> None:
    short = cell(tmp_path / "a", ROWS[:2], ended)
    long = cell(tmp_path / "b", ROWS, WorkState.PREEMPTED)
    for order in ([short, long], [long, short]):
        found = choose(order)
        assert (found.directory, found.others, found.conflicts) == (long, (short,), ())


def test_as_far_the_one_that_is_done_counts(tmp_path: Path) -> None:
    stopped = cell(tmp_path / "a", ROWS, WorkState.PREEMPTED)
    done = cell(tmp_path / "b", ROWS)
    assert choose([stopped, done]).directory == done


def test_profiles_without_common_lines_are_told_by_their_sums(tmp_path: Path) -> None:
    one, other = cell(tmp_path / "a", []), cell(tmp_path / "b", [])
    for place, digest in ((one, "aa"), (other, "bb")):
        (place.path / "checkpoint").mkdir()
        (place.path / "checkpoint" / f"00000004-{digest}.pt").touch()
    assert differs(one, other) == "checkpoint: no file is the same"
    shutil.copy(one.path / "checkpoint" / "00000004-aa.pt", other.path / "checkpoint")
    assert differs(one, other) == ""


def test_directories_of_one_name_lie_together_in_the_order_that_was_given(tmp_path: Path) -> None:
    for place, name in (("x", "c1"), ("x", "c2"), ("w", "c1")):
        cell(tmp_path / place / "cells" / name, ROWS)
    (tmp_path / "x" / "cells" / "note.txt").touch()
    found = by_id([tmp_path / "x", tmp_path / "w"], "cells")
    assert list(found) == ["c1", "c2"]
    assert [place.path.parents[1].name for place in found["c1"]] == ["x", "w"]


def test_a_damaged_log_is_an_error_that_names_it(tmp_path: Path) -> None:
    one, other = cell(tmp_path / "a", ROWS), cell(tmp_path / "b", ROWS)
    (other.path / "metrics.jsonl").write_text("{\n" + json.dumps(ROWS[0]) + "\n")
    with pytest.raises(BenchError, match=r"b/metrics.jsonl:1: damaged"):
        choose([one, other])
    assert len(read_rows(one.path / "metrics.jsonl")) == len(ROWS)
