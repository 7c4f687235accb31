from pathlib import Path

import pytest
from rich.console import Console

from bench.base.errors import BenchError
from bench.run import claims
from bench.run.slurm import control
from bench.run.store import Cause, ResultsDir, WorkState
from bench.run.work import CellWork
from tests.run.slurm.fakes import FOLDER, SUBMISSION, Programs, submitted, write_log
from tests.support.running import plan_dots


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """No program of SLURM but those that a test makes."""
    return Programs(tmp_path, monkeypatch)


@pytest.fixture
def todo(tmp_path: Path, plugin: None) -> list[CellWork]:
    """The base model and `push` with seeds 0 … 3."""
    return plan_dots(tmp_path / "out", steps=9, seeds="0,1,2,3")


@pytest.fixture
def results(tmp_path: Path) -> ResultsDir:
    """Where they are."""
    return ResultsDir(tmp_path / "out")


def test_cell_is_found_by_its_name_and_by_a_part_that_only_it_has(
    todo: list[CellWork], results: ResultsDir
) -> None:
    assert control.find(results, todo[2].id).id == todo[2].id
    assert control.find(results, "-s3-").id == todo[4].id
    assert control.find(results, "base").id == todo[0].id


def test_name_that_several_cells_share_lists_them(todo: list[CellWork], results: ResultsDir) -> None:
    with pytest.raises(BenchError) as error:
        control.find(results, "push")
    assert str(error.value).startswith("'push' is a part of 4 cells' names:\n  push-dots-brightness-s0-")
    assert all(work.id in str(error.value) for work in todo[1:])


def test_whole_name_wins_over_longer_ones(todo: list[CellWork], results: ResultsDir) -> None:
    longer = results.path / "cells" / f"{todo[1].id}-again"
    longer.mkdir()
    (longer / "config.yaml").write_bytes((todo[1].directory.path / "config.yaml").read_bytes())
    assert control.find(results, todo[1].id).id == todo[1].id


def test_unknown_name_is_told_with_the_closest_one(todo: list[CellWork], results: ResultsDir) -> None:
    with pytest.raises(BenchError, match=r"has no cell 'pushdots-brightness-s2'\. Did you mean 'push-dots-"):
        control.find(results, "pushdots-brightness-s2")


def test_retry_takes_what_ended_badly_and_nobody_has(
    todo: list[CellWork], results: ResultsDir, programs: Programs
) -> None:
    endings: list[tuple[WorkState, Cause | None]] = [
        (WorkState.DONE, None),
        (WorkState.FAILED, Cause.OUT_OF_MEMORY),
        (WorkState.TIMEOUT, None),
        (WorkState.PREEMPTED, Cause.CANCELLED),
        (WorkState.RUNNING, None),  # its process is gone
    ]
    for work, (state, cause) in zip(todo, endings, strict=True):
        work.directory.write_status(state, 3, 1.0, "why", cause=cause)

    def chosen(which: str) -> list[int]:
        ids = [work.id for work in todo]
        return sorted(ids.index(found.id) for found in control.to_retry(results, which))

    assert chosen(control.FAILED) == [1, 4]
    assert chosen(control.TIMEOUT) == [2]
    assert chosen(control.ALL) == [1, 2, 3, 4]
    submitted(results.path, todo[1:3])
    programs.queue("77_0|PENDING||Priority|N/A", "77_1|RUNNING|n1|None|N/A")
    todo[1].directory.write_status(WorkState.PENDING, 3, 1.0)
    todo[2].directory.write_status(WorkState.RUNNING, 3, 1.0)
    assert chosen(control.ALL) == [3, 4]
    assert chosen(control.FAILED) == [4]


def test_retry_takes_a_cell_whose_job_just_died(
    todo: list[CellWork], results: ResultsDir, programs: Programs
) -> None:
    submitted(results.path, todo[:1])
    programs.queue("77_0|NODE_FAIL|n1|None|2020-01-01")
    assert [cell.id for cell in control.to_retry(results, control.FAILED)] == [todo[0].id]


def cancel(results: ResultsDir, *names: str) -> int:
    """`bench cancel`."""
    return control.cancel(Console(width=200), results, names)


def test_cancel_takes_all_out_of_the_queue_and_frees_them(
    todo: list[CellWork],
    results: ResultsDir,
    programs: Programs,
    capsys: pytest.CaptureFixture[str],
) -> None:
    submission = submitted(results.path, todo[:3])
    submission.model_copy(update={"report": "78"}).write(results)
    todo[1].directory.write_status(
        WorkState.PREEMPTED, 3, 1.0, "stopped by preemption at step 3; queued again"
    )
    programs.queue(*(f"77_{n}|PENDING||Priority|N/A" for n in range(3)))
    over = "".join(f"77_{n}|CANCELLED||None|2020-01-01\\n" for n in range(3))
    programs.script(  # from then on squeue says so
        "scancel", f"printf '#!/bin/sh\\nprintf \"%s\"\\n' '{over}' > {programs.folder}/squeue\n"
    )
    assert cancel(results) == 0
    (call,) = programs.calls("scancel")
    assert call.split() == ["77_0", "77_1", "77_2", "78"]
    assert "cancelled 3 cells, 1 of them had begun and continue where they stopped" in capsys.readouterr().out
    for work, step in zip(todo[:3], (0, 3, 0), strict=True):
        status = work.directory.status()
        assert (status.state, status.cause) == (WorkState.PREEMPTED, Cause.CANCELLED)
        assert status.message == f"cancelled at step {step}"
        assert claims.read(work.directory) is None


def test_cancel_of_one_cell_leaves_the_others_and_the_report(
    todo: list[CellWork], results: ResultsDir, programs: Programs
) -> None:
    submission = submitted(results.path, todo)
    submission.model_copy(update={"report": "78"}).write(results)
    programs.queue(*(f"77_{n}|PENDING||Priority|N/A" for n in range(5)))
    programs.script("scancel", f"printf '#!/bin/sh\\n' > {programs.folder}/squeue\n")
    assert cancel(results, "-s1-") == 0
    assert programs.calls("scancel") == ["77_2"]
    assert claims.read(todo[2].directory) is None
    assert all(claims.read(work.directory) for work in todo if work is not todo[2])


def test_cancel_leaves_cells_of_local_runs_and_says_where_to_stop_them(
    todo: list[CellWork], results: ResultsDir, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = claims.of_this_process()
    assert claims.take(todo[0].directory, mine, lambda *_: True) is None
    assert cancel(results) == 1
    said = capsys.readouterr().out
    assert f"{todo[0].id} is run by process {mine.pid} on {mine.host}: stop it there" in said
    assert "no cell has a SLURM job: nothing to cancel" in said
    assert claims.read(todo[0].directory) is not None


def test_cancel_where_nothing_is_queued_says_so(
    todo: list[CellWork], results: ResultsDir, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cancel(results) == 0
    assert "nothing to cancel" in capsys.readouterr().out
    assert programs.calls("scancel") == []


def test_logs_show_what_the_job_the_process_and_the_traceback_said(
    todo: list[CellWork], results: ResultsDir, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = todo[1].directory.path
    submitted(results.path, todo[:2])
    log = write_log(results.path, "77_1", "srun: [bold] error\n")
    write_log(results.path, "77_0", "another cell's\n")
    (cell / "output.txt").write_text("".join(f"line {n}\n" for n in range(60)))
    (cell / "traceback.txt").write_text("RuntimeError: out of luck\n")
    control.logs(Console(width=200), results, "-s0-", follow=False)
    lines = capsys.readouterr().out.splitlines()
    output = f"── {cell / 'output.txt'} (the last 40 of 60 lines)"
    headers = [f"── {log}", output, f"── {cell / 'traceback.txt'}"]
    assert [line for line in lines if line.startswith("──")] == headers
    assert lines[1] == "srun: [bold] error"
    assert lines[lines.index(output) + 1] == "line 20"
    assert lines[-1] == "RuntimeError: out of luck"
    assert "another cell's" not in lines


def test_logs_are_of_the_newest_submission(todo: list[CellWork], results: ResultsDir) -> None:
    first = submitted(results.path, todo[:1])
    old = write_log(results.path, "77_0", "old\n")
    newer = first.model_copy(update={"name": "20270101-000000-fedcba", "jobs": {todo[0].id: "99"}})
    newer.write(results)
    new = results.path / FOLDER / newer.name / "99_0_log.out"
    new.write_text("new\n")
    found = control.log_files(results, results.cell(todo[0].id))
    assert new in found
    assert old not in found
    assert SUBMISSION in str(old)


def test_following_prints_what_is_added_until_nobody_has_the_cell(
    todo: list[CellWork],
    results: ResultsDir,
    programs: Programs,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = todo[1].directory.path / "output.txt"
    output.write_text("before\n")
    submitted(results.path, todo[1:2])
    programs.queue("77_0|RUNNING|n1|None|N/A")

    class Clock:
        """While it sleeps, the cell goes on and ends."""

        def sleep(self, seconds: float) -> None:
            with output.open("a") as stream:
                stream.write("added\n")
            todo[1].directory.write_status(WorkState.DONE, 9, 1.0)

    monkeypatch.setattr(control, "time", Clock())
    control.logs(Console(width=200), results, "-s0-", follow=True)
    assert capsys.readouterr().out.splitlines()[1:] == ["before", "added"]
