import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.base.errors import BenchError
from bench.run import claims, store
from bench.run.slurm.settle import settle
from bench.run.store import Cause, CellDir, ResultsDir, WorkState
from bench.run.work import CellWork
from tests.run.slurm.fakes import Programs, submitted, write_log
from tests.support.running import plan_dots

OLD = "2020-01-01T10:00:00"
STEPD = "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=77.batch cgroup."


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """No program of SLURM but those that a test makes."""
    return Programs(tmp_path, monkeypatch)


@pytest.fixture
def work(tmp_path: Path, plugin: None, programs: Programs) -> CellWork:
    """A cell that ran to step 3 in job 77_0."""
    (_, found) = plan_dots(tmp_path / "out", steps=9)
    found.directory.write_status(WorkState.RUNNING, 3, 1.5)
    submitted(tmp_path / "out", [found])
    return found


def settled(work: CellWork) -> tuple[WorkState, Cause | None, str]:
    """What is on record once the queue was looked at; the claim is gone."""
    cell = CellDir(work.directory.path)
    settle(ResultsDir(cell.path.parent.parent), [cell])
    status = cell.status()
    assert claims.read(cell) is None
    assert (status.step, status.seconds, status.total) == (3, 1.5, 9)
    assert status.message is not None
    return status.state, status.cause, status.message


@pytest.mark.parametrize(
    ("line", "state", "cause", "message"),
    [
        ("NODE_FAIL|n1|None", WorkState.FAILED, Cause.NODE_FAILURE, "the node of job 77_0 on n1 failed"),
        ("BOOT_FAIL|n1|None", WorkState.FAILED, Cause.NODE_FAILURE, "the node of job 77_0 on n1 failed"),
        (
            "TIMEOUT|n1|None",
            WorkState.TIMEOUT,
            None,
            "job 77_0 reached its time limit, the checkpoint is at step 3",
        ),
        (
            "DEADLINE||None",
            WorkState.TIMEOUT,
            None,
            "job 77_0 reached its time limit, the checkpoint is at step 3",
        ),
        ("CANCELLED||None", WorkState.PREEMPTED, Cause.CANCELLED, "job 77_0 was cancelled at step 3"),
        (
            "CANCELLED||DependencyNeverSatisfied",
            WorkState.PREEMPTED,
            Cause.DEPENDENCY,
            "the dependency of job 77_0 cannot hold",
        ),
        ("PREEMPTED|n1|None", WorkState.PREEMPTED, None, "job 77_0 was preempted and not queued again"),
        ("FAILED|n1|None", WorkState.FAILED, Cause.KILLED, "job 77_0 was killed on n1 (SLURM: FAILED)."),
        ("COMPLETED|n1|None", WorkState.FAILED, Cause.LOST, "job 77_0 ended without running the cell."),
    ],
)
def test_each_ending_has_its_own_state_and_the_message_names_the_job(
    work: CellWork, programs: Programs, line: str, state: WorkState, cause: Cause | None, message: str
) -> None:
    programs.queue(f"77_0|{line}|{OLD}")
    assert settled(work) == (state, cause, message)


@pytest.mark.parametrize("line", ["FAILED|n1|None", "COMPLETED|n1|None"])
def test_message_of_a_death_names_the_log(
    work: CellWork, programs: Programs, tmp_path: Path, line: str
) -> None:
    log = write_log(tmp_path / "out", "77_0", "the shell said something\n")
    programs.queue(f"77_0|{line}|{OLD}")
    assert settled(work)[2].endswith(f" See {log}")


def test_out_of_memory_by_slurms_state_says_the_estimate_and_what_to_do(
    work: CellWork, programs: Programs
) -> None:
    programs.queue(f"77_0|OUT_OF_MEMORY|n1|None|{OLD}")
    state, cause, message = settled(work)
    assert (state, cause) == (WorkState.FAILED, Cause.OUT_OF_MEMORY)
    assert message.startswith("out of main memory: killed at the job's limit. ")
    assert "estimate" in message or "Nothing is known of this model's size" in message
    assert message.endswith("More for a retry: --with mem=…")


@pytest.mark.parametrize(
    "words",
    [
        STEPD,
        "slurmstepd: error: Job 77 exceeded memory limit (2100 > 2048), being killed",
        "slurmstepd: error: StepId=77.0 exceeded memory limit (2100 > 2048), being killed",
        "slurmstepd-n1: error: Detected 2 oom_kill events in StepId=77.0. Some of the step todo have been "
        "OOM Killed.",
    ],
)
def test_out_of_memory_by_slurmstepds_words_in_a_job_that_only_failed(
    work: CellWork, programs: Programs, tmp_path: Path, words: str
) -> None:
    write_log(tmp_path / "out", "77_0", f"hello\n{words}\nsrun: error: n1: work 0: Killed\n")
    programs.queue(f"77_0|FAILED|n1|NonZeroExitCode|{OLD}")
    state, cause, message = settled(work)
    assert (state, cause) == (WorkState.FAILED, Cause.OUT_OF_MEMORY)
    assert f"SLURM: {words}" in message


@pytest.mark.parametrize(
    "words",
    [
        "the cell talks about out of memory and oom-kill",
        "slurmstepd: error: *** JOB 77 ON n1 CANCELLED AT 2026-01-01T10:00:00 ***",
    ],
)
def test_other_words_do_not_make_a_death_one_of_memory(
    work: CellWork, programs: Programs, tmp_path: Path, words: str
) -> None:
    write_log(tmp_path / "out", "77_0", words + "\n")
    programs.queue(f"77_0|FAILED|n1|None|{OLD}")
    assert settled(work)[1] is Cause.KILLED


def test_words_of_another_cells_log_are_not_this_ones(
    work: CellWork, programs: Programs, tmp_path: Path
) -> None:
    write_log(tmp_path / "out", "77_01", STEPD)
    write_log(tmp_path / "out", "177_0", STEPD)
    programs.queue(f"77_0|FAILED|n1|None|{OLD}")
    assert settled(work)[1] is Cause.KILLED


def test_job_that_slurm_forgot_is_lost_if_it_had_begun_and_cancelled_if_not(
    work: CellWork, programs: Programs, tmp_path: Path
) -> None:
    programs.queue()
    assert settled(work) == (
        WorkState.PREEMPTED,
        Cause.CANCELLED,
        "job 77_0 left the queue before it started",
    )
    submitted(tmp_path / "out", [work])
    log = write_log(tmp_path / "out", "77_0", "hello\n")
    assert settled(work) == (WorkState.FAILED, Cause.LOST, f"SLURM no longer knows job 77_0. See {log}")


@pytest.mark.parametrize(
    "line", ["RUNNING|n1|None", "PENDING||Priority", "COMPLETING|n1|None", "REQUEUED||None"]
)
def test_cells_of_live_jobs_are_not_touched(work: CellWork, programs: Programs, line: str) -> None:
    programs.queue(f"77_0|{line}|N/A")
    cell = CellDir(work.directory.path)
    before = {path: path.read_bytes() for path in cell.path.iterdir()}
    settle(ResultsDir(cell.path.parent.parent), [cell])
    assert {path: path.read_bytes() for path in cell.path.iterdir()} == before


@pytest.mark.parametrize("state", [WorkState.FAILED, WorkState.TIMEOUT, WorkState.DONE])
def test_what_the_cell_said_itself_stays_on_record(
    work: CellWork, programs: Programs, state: WorkState
) -> None:
    work.directory.write_status(state, 3, 1.5, "its own words")
    programs.queue(f"77_0|FAILED|n1|None|{OLD}")
    assert settled(work) == (state, None, "its own words")


def test_nothing_is_touched_where_slurm_cannot_be_asked(work: CellWork, programs: Programs) -> None:
    cell = CellDir(work.directory.path)
    settle(ResultsDir(cell.path.parent.parent), [cell])
    assert claims.read(cell) is not None
    assert cell.status().state is WorkState.RUNNING


def test_slurm_that_is_down_settles_nothing_and_is_one_message(work: CellWork, programs: Programs) -> None:
    programs.say("squeue", error="Unable to contact slurm controller", code=1)
    cell = CellDir(work.directory.path)
    with pytest.raises(BenchError, match="SLURM does not answer: squeue: Unable to contact"):
        settle(ResultsDir(cell.path.parent.parent), [cell])
    assert claims.read(cell) is not None
    assert cell.status().state is WorkState.RUNNING


def test_cell_whose_process_is_still_ending_is_left_for_the_next_look_at_once(
    work: CellWork, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.queue(f"77_0|FAILED|n1|None|{OLD}")
    cell = CellDir(work.directory.path)
    waits = list[float]()
    # A lock is of the open file: this process is not spared.
    with cell.locked(), monkeypatch.context() as patch:
        patch.setattr(store, "time", SimpleNamespace(monotonic=time.monotonic, sleep=waits.append))
        settle(ResultsDir(cell.path.parent.parent), [cell])
    assert sum(waits) <= 0.1  # of seconds asked for: 500 of them must not hold up a look
    assert claims.read(cell) is not None
    assert settled(work)[1] is Cause.KILLED


def test_cell_that_another_submission_took_while_slurm_was_asked_is_not_touched(
    work: CellWork, programs: Programs
) -> None:
    cell = CellDir(work.directory.path)
    other = claims.of_this_process("another").model_dump_json()
    programs.script(
        "squeue", f"echo '{other}' > {cell.path}/{claims.FILE}\necho '77_0|FAILED|n1|None|{OLD}'\n"
    )
    settle(ResultsDir(cell.path.parent.parent), [cell])
    held = claims.read(cell)
    assert held is not None
    assert held[0].token == "another"
    assert cell.status().state is WorkState.RUNNING


def test_submission_that_is_being_made_is_not_settled(
    tmp_path: Path, plugin: None, programs: Programs
) -> None:
    (_, work) = plan_dots(tmp_path / "out")
    submitted(tmp_path / "out", [work], sent=False)
    programs.queue()
    settle(ResultsDir(tmp_path / "out"), ResultsDir(tmp_path / "out").cells())
    assert claims.read(work.directory) is not None
    assert work.directory.status().state is WorkState.PENDING


def test_all_cells_of_a_submission_cost_one_question(
    tmp_path: Path, plugin: None, programs: Programs
) -> None:
    todo = plan_dots(tmp_path / "out", seeds="0,1,2,3")
    submitted(tmp_path / "out", todo)
    programs.queue(*(f"77_{n}|RUNNING|n1|None|N/A" for n in range(len(todo))))
    settle(ResultsDir(tmp_path / "out"), ResultsDir(tmp_path / "out").cells())
    assert len(programs.calls("squeue")) == 1
