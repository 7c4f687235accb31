import json
import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from bench.base.errors import BenchError
from bench.base.files import append_rows
from bench.run import claims
from bench.run.slurm import status
from bench.run.slurm.status import Standing, standings
from bench.run.store import Cause, ResultsDir, WorkState
from bench.run.work import CellWork
from tests.run.slurm.fakes import Programs, submitted
from tests.support.running import here, plan_dots

COLUMNS = ("cell", "state", "step", "reward", "ETA", "node", "job")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """No program of SLURM but those that a test makes."""
    return Programs(tmp_path, monkeypatch)


@pytest.fixture
def work(tmp_path: Path, plugin: None) -> CellWork:
    """A planned cell of 8 steps."""
    (_, found) = plan_dots(tmp_path / "out", steps=8)
    shutil.rmtree(next((tmp_path / "out" / "cells").glob("base-*")))
    return found


def standing(work: CellWork) -> Standing:
    """Where it stands."""
    (found,) = standings(ResultsDir(work.directory.path.parent.parent))
    return found


def row(step: int) -> dict[str, float]:
    """A line of its log, as much of it as status reads."""
    return {"step": step, "seconds": 2.0 * step, "reward_mean": 0.25 + step / 100}


def test_planned_cell_that_nobody_has_is_pending(work: CellWork, programs: Programs) -> None:
    found = standing(work)
    assert (found.state, found.step, found.total, found.reward, found.job) == ("pending", 0, 8, None, "")
    assert not found.active


def test_waiting_job_is_queued_with_slurms_reason(work: CellWork, programs: Programs, tmp_path: Path) -> None:
    submitted(tmp_path / "out", [work])
    programs.queue("77_0|PENDING||PartitionTimeLimit|N/A")
    found = standing(work)
    assert (found.state, found.job, found.note, found.active) == (
        "queued",
        "77_0",
        "PartitionTimeLimit",
        True,
    )


def test_requeued_cell_says_what_stopped_it(work: CellWork, programs: Programs, tmp_path: Path) -> None:
    submitted(tmp_path / "out", [work])
    work.directory.write_status(WorkState.PREEMPTED, 3, 6.0, "stopped by preemption at step 3; queued again")
    programs.queue("77_0|PENDING||BeginTime|N/A")
    assert standing(work).note == "stopped by preemption at step 3"
    programs.queue("77_0|PENDING||ReqNodeNotAvail|N/A")
    assert standing(work).note == "stopped by preemption at step 3; ReqNodeNotAvail"


def test_cell_that_goes_on_after_its_jobs_time_limit_is_active_all_the_way(
    work: CellWork, programs: Programs, tmp_path: Path
) -> None:
    submitted(tmp_path / "out", [work])
    why = "stopped by the time limit at step 3"
    work.directory.write_status(WorkState.TIMEOUT, 3, 6.0, f"{why}; queued again")
    programs.queue("77_0|COMPLETING|n1|None|N/A")
    assert standing(work).active
    programs.queue("77_0|PENDING||BeginTime|N/A")
    found = standing(work)
    assert (found.state, found.note) == ("queued", why)


def test_running_cell_shows_its_logs_last_line_node_job_and_time_left(
    work: CellWork, programs: Programs, tmp_path: Path
) -> None:
    submitted(tmp_path / "out", [work])
    programs.queue("77_0|RUNNING|n3|None|N/A")
    assert standing(work).state == "starting"
    work.directory.write_status(WorkState.RUNNING, 2, 4.0)
    append_rows(work.log, [row(step) for step in range(1, 6)])
    with work.log.open("a") as stream:
        stream.write('{"step": 6, "half a li')
    found = standing(work)
    assert (found.state, found.node, found.job, found.active) == ("running", "n3", "77_0", True)
    assert (found.step, found.total) == (5, 8)
    assert found.reward == pytest.approx(0.30)
    assert found.eta == pytest.approx(3 * 2.0)
    assert found.log == str(work.directory.path / "output.txt")


def test_cell_that_is_done_shows_where_it_ran_and_no_time_left(
    work: CellWork, programs: Programs, tmp_path: Path
) -> None:
    append_rows(work.log, [row(step) for step in range(1, 9)])
    work.directory.write_status(WorkState.DONE, 8, 16.0)
    (work.directory.path / "job.json").write_text('{"job": "77_0", "node": "n2"}')
    found = standing(work)
    assert (found.state, found.step, found.node, found.job, found.eta) == ("done", 8, "n2", "77_0", None)


def test_cell_that_is_being_sent_is_submitting(work: CellWork, programs: Programs, tmp_path: Path) -> None:
    programs.queue()
    submitted(tmp_path / "out", [work], sent=False)
    assert standing(work).state == "submitting"


def test_cell_of_a_submission_is_unknown_where_slurm_cannot_be_asked(
    work: CellWork, programs: Programs, tmp_path: Path
) -> None:
    submitted(tmp_path / "out", [work])
    found = standing(work)
    assert (found.state, found.job, found.active) == ("unknown", "77_0", True)
    assert found.note == "job 77_0: SLURM cannot be asked from here"


def test_cell_of_a_local_run_is_waiting_then_running_and_killed_when_its_run_is_gone(
    work: CellWork, programs: Programs
) -> None:
    mine = claims.of_this_process()
    assert claims.take(work.directory, mine, claims_live) is None
    assert standing(work).state == "waiting"
    work.directory.write_status(WorkState.RUNNING, 1, 2.0)
    found = standing(work)
    assert (found.state, found.node, found.active) == ("running", mine.host, True)
    claims.release(work.directory, mine.token)
    found = standing(work)
    assert (found.state, found.active) == ("killed", False)
    assert found.note == "its process is gone; it continues from its last checkpoint"


def claims_live(*_: object) -> bool:
    """Every claim's owner lives."""
    return True


@pytest.mark.parametrize(
    ("state", "cause", "shown"),
    [
        (WorkState.FAILED, None, "failed"),
        (WorkState.FAILED, Cause.OUT_OF_MEMORY, "out of memory"),
        (WorkState.FAILED, Cause.NODE_FAILURE, "node failure"),
        (WorkState.FAILED, Cause.KILLED, "killed"),
        (WorkState.TIMEOUT, None, "timeout"),
        (WorkState.PREEMPTED, None, "preempted"),
        (WorkState.PREEMPTED, Cause.CANCELLED, "cancelled"),
        (WorkState.PREEMPTED, Cause.DEPENDENCY, "dependency failed"),
    ],
)
def test_endings_are_told_apart_with_their_reason(
    work: CellWork, programs: Programs, state: WorkState, cause: Cause | None, shown: str
) -> None:
    work.directory.write_status(state, 3, 6.0, "the reason", cause=cause)
    found = standing(work)
    assert (found.state, found.note, found.active) == (shown, "the reason", False)


def test_cell_that_failed_is_failed_while_its_job_is_still_ending(
    work: CellWork, programs: Programs, tmp_path: Path
) -> None:
    submitted(tmp_path / "out", [work])
    work.directory.write_status(WorkState.FAILED, 3, 6.0, "out of luck")
    programs.queue("77_0|COMPLETING|n1|None|N/A")
    found = standing(work)
    assert (found.state, found.note, found.active) == ("failed", "out of luck", False)


def test_directory_without_cells_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"no cells here; name the directory that run or submit wrote to"):
        standings(ResultsDir(tmp_path))


def test_json_has_every_field_of_every_cell(work: CellWork, programs: Programs, tmp_path: Path) -> None:
    found = standings(ResultsDir(tmp_path / "out"))
    done = here("status", tmp_path / "out", "--json")
    assert done.returncode == 0 and json.loads(done.stdout) == [asdict(one) for one in found]


def some(n: int, **changes: object) -> Standing:
    """A made-up cell."""
    cell = f"truncated-bp-weighted-sd21-base-clip-vit-l-14-s{n}-121e67be"
    plain = Standing(cell, "running", 12, 100, 0.5, 3725.4, "gpu-node-17", f"1234567_{n}", "/far/log", "")
    return Standing(**{**asdict(plain), **changes})  # type: ignore[arg-type]


def shown(found: list[Standing], width: int, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of the table on a terminal of that width."""
    status.show(Console(width=width), ResultsDir(Path("results/x")), found)
    return capsys.readouterr().out.splitlines()


def test_narrow_terminal_keeps_every_column_and_cuts_nothing_off(capsys: pytest.CaptureFixture[str]) -> None:
    found = [some(n) for n in range(3)]
    lines = shown(found, 80, capsys)
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == list(COLUMNS)
    assert len([line for line in lines if "12/100" in line and "1:02:05" in line and "0.5" in line]) == 3
    first = lines[0].index("state")
    names = "".join(line[:first].strip() for line in lines[1:-3])
    assert names == "".join(one.cell for one in found)
    assert "…" not in "".join(lines)
    assert "3 cells: 3 running" in lines


def test_wide_terminal_shows_log_paths(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown([some(0)], 200, capsys)
    assert lines[0].split() == [*COLUMNS, "log"]
    assert "/far/log" in lines[1]
    assert not lines[-1].startswith("logs:")


def test_reasons_are_below_the_table_ten_at_most(capsys: pytest.CaptureFixture[str]) -> None:
    failed = [some(n, state="out of memory", note=f"reason {n}\nmore lines") for n in range(12)]
    lines = shown([*failed, some(20, state="queued", note="Priority")], 200, capsys)
    assert [line for line in lines if ": out of memory: reason" in line] == [
        f"{failed[n].cell}: out of memory: reason {n}" for n in range(10)
    ]
    assert "… and 2 more: python -m bench status results/x --json" in lines
    assert not any("Priority" in line for line in lines)
    assert "13 cells: 12 out of memory, 1 queued" in lines


def test_waiting_for_cells_tells_each_change_once_and_whether_all_are_done(
    work: CellWork, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    submitted(tmp_path / "out", [work])
    words = iter(["PENDING||Priority", "PENDING||Priority", "RUNNING|n1|None", "NODE_FAIL|n1|None"])
    programs.queue(f"77_0|{next(words)}|N/A")

    def time_passes(_: float) -> None:
        programs.queue(f"77_0|{next(words)}|2020-01-01")

    monkeypatch.setattr(status, "time", SimpleNamespace(sleep=time_passes))
    assert not status.wait(ResultsDir(tmp_path / "out"), [work.id], told.append, 1.0)
    assert told == [
        f"{work.id}: queued",
        f"{work.id}: starting on n1",
        f"{work.id}: node failure: the node of job 77_0 on n1 failed",
    ]


def test_watching_ends_when_nothing_is_active(
    work: CellWork, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    status.watch(Console(width=200), ResultsDir(work.directory.path.parent.parent), 60.0)
    assert "1 cells: 1 pending" in capsys.readouterr().out


@pytest.mark.silent
def test_status_says_that_its_reward_is_of_training_and_not_held_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = " ".join(" ".join(shown([some(0)], 200, capsys)).split())
    assert "reward: mean of the newest training batch; `report` has the held-out reward" in text
