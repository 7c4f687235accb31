from datetime import datetime, timedelta
from pathlib import Path

import pytest

from bench.base.errors import BenchError
from bench.run.slurm import scheduler
from bench.run.slurm.scheduler import Job
from tests.run.slurm.fakes import Programs


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """No program of SLURM but those that a test makes."""
    return Programs(tmp_path, monkeypatch)


def at(seconds_ago: float) -> str:
    """As squeue writes times."""
    return (datetime.now() - timedelta(seconds=seconds_ago)).isoformat(timespec="seconds")


def test_jobs_and_array_tasks_are_told_apart(programs: Programs) -> None:
    programs.queue(
        "77_0|RUNNING|n1|None|2026-01-01T10:00:00",
        "77_1|PENDING||JobArrayTaskLimit|N/A",
        "78|PENDING||Dependency|N/A",
        "79_0|RUNNING|n2|None|N/A",
    )
    assert scheduler.ask({"77_0", "77_1", "78"}) == {
        "77_0": Job("77_0", "RUNNING", "n1", ""),
        "77_1": Job("77_1", "PENDING", "", "JobArrayTaskLimit"),
        "78": Job("78", "PENDING", "", "Dependency"),
    }


def test_all_tasks_of_an_array_are_asked_for_at_once(programs: Programs) -> None:
    programs.queue(*(f"77_{n}|RUNNING|n1|None|N/A" for n in range(50)))
    assert len(scheduler.ask(f"77_{n}" for n in range(50))) == 50
    (call,) = programs.calls("squeue")
    assert call.endswith("-j 77,1")
    assert "--array" in call
    assert "--states=all" in call


def test_nothing_to_ask_asks_nothing(programs: Programs) -> None:
    assert scheduler.ask([]) == {}


@pytest.mark.parametrize(
    ("state", "waits", "over"),
    [
        ("PENDING", True, False),
        ("REQUEUED", True, False),
        ("REQUEUE_HOLD", True, False),
        ("CONFIGURING", True, False),
        ("RUNNING", False, False),
        ("COMPLETING", False, False),
        ("SUSPENDED", False, False),
        ("COMPLETED", False, True),
        ("FAILED", False, True),
        ("CANCELLED", False, True),
        ("TIMEOUT", False, True),
        ("OUT_OF_MEMORY", False, True),
        ("PREEMPTED", False, True),
        ("NODE_FAIL", False, True),
        ("DEADLINE", False, True),
    ],
)
def test_states_are_waiting_running_or_over(programs: Programs, state: str, waits: bool, over: bool) -> None:
    programs.queue(f"77_0|{state}|n1|None|2026-01-01T10:00:00")
    job = scheduler.ask(["77_0"])["77_0"]
    assert (job.waits, job.over) == (waits, over)


def test_what_squeue_has_forgotten_is_asked_of_accounting(programs: Programs) -> None:
    programs.queue("77_0|RUNNING|n1|None|N/A")
    programs.say("sacct", "80_0|OUT_OF_MEMORY|n2\n80_1|CANCELLED by 0|None assigned\n81|FAILED|n3\n")
    found = scheduler.ask(["77_0", "80_0", "80_1", "81"])
    assert found["80_0"] == Job("80_0", "OUT_OF_MEMORY", "n2")
    assert found["80_1"] == Job("80_1", "CANCELLED", "")
    assert found["81"] == Job("81", "FAILED", "n3")
    (call,) = programs.calls("sacct")
    assert sorted(call.partition("-j ")[2].split(",")) == ["80", "81"]


def test_squeues_word_goes_over_accountings(programs: Programs) -> None:
    programs.queue("77_0|RUNNING|n1|None|N/A")
    programs.say("sacct", "77_0|NODE_FAIL|n1\n77_1|COMPLETED|n2\n")
    found = scheduler.ask(["77_0", "77_1"])
    assert (found["77_0"].state, found["77_1"].state) == ("RUNNING", "COMPLETED")


def test_accounting_is_left_alone_while_squeue_knows_everything(programs: Programs) -> None:
    programs.queue("77_0|RUNNING|n1|None|N/A")
    programs.say("sacct")
    scheduler.ask(["77_0"])
    assert programs.calls("sacct") == []


def test_without_accounting_squeues_word_is_all_there_is(programs: Programs) -> None:
    programs.queue("77_0|RUNNING|n1|None|N/A")
    assert set(scheduler.ask(["77_0", "80_0"])) == {"77_0"}
    programs.say("sacct", error="Slurm accounting storage is disabled", code=1)
    assert set(scheduler.ask(["77_0", "80_0"])) == {"77_0"}
    assert len(programs.calls("sacct")) == 1


def test_array_task_without_a_record_was_cancelled_if_the_array_is_known(programs: Programs) -> None:
    programs.queue("77_0|COMPLETED|n1|None|2026-01-01T10:00:00")
    assert scheduler.ask(["77_0", "77_1"])["77_1"] == Job("77_1", "CANCELLED")
    programs.queue()
    programs.say("sacct", "77_[1-3]|CANCELLED by 0|None assigned\n77_0|COMPLETED|n1\n")
    found = scheduler.ask(["77_0", "77_1"])
    assert (found["77_0"].state, found["77_1"].state) == ("COMPLETED", "CANCELLED")


def test_node_failure_just_now_counts_as_requeued_and_an_old_one_does_not(programs: Programs) -> None:
    programs.queue(f"77_0|NODE_FAIL|n1|None|{at(5)}", f"77_1|BOOT_FAIL|n1|None|{at(600)}")
    found = scheduler.ask(["77_0", "77_1"])
    assert found["77_0"].waits
    assert found["77_1"].over
    programs.queue("77_0|NODE_FAIL|n1|None|N/A")
    assert scheduler.ask(["77_0"])["77_0"].over


def test_slurm_that_does_not_answer_is_one_message(programs: Programs) -> None:
    programs.say("squeue", error="slurm_load_jobs error: Unable to contact slurm controller\n", code=1)
    with pytest.raises(BenchError) as error:
        scheduler.ask(["77_0"])
    assert str(error.value) == (
        "SLURM does not answer: squeue: slurm_load_jobs error: Unable to contact slurm controller"
    )


def test_slurm_that_hangs_is_one_message(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "PATIENCE", 0.2)
    programs.script("squeue", "while :; do :; done\n")
    with pytest.raises(BenchError, match=r"SLURM does not answer: squeue took over 0\.2 s"):
        scheduler.ask(["77_0"])


@pytest.mark.parametrize(("size", "expected"), [("5001", 5001), ("1", 1), ("0", 1)])
def test_largest_array_is_the_sites_and_one_where_it_has_none(
    programs: Programs, size: str, expected: int
) -> None:
    programs.say("scontrol", f"MaxArraySize            = {size}\nMaxJobCount = 10000\n")
    assert scheduler.largest_array() == expected


def test_largest_array_is_slurms_own_where_the_site_does_not_tell(programs: Programs) -> None:
    programs.say("scontrol", error="no", code=1)
    assert scheduler.largest_array() == scheduler.DEFAULT_ARRAY


def test_many_jobs_are_cancelled_in_portions(programs: Programs) -> None:
    programs.say("scancel")
    scheduler.cancel(f"77_{n}" for n in range(450))
    calls = programs.calls("scancel")
    assert [len(call.split()) for call in calls] == [200, 200, 50]
    assert {job for call in calls for job in call.split()} == {f"77_{n}" for n in range(450)}


def test_cancelling_a_job_that_has_ended_is_no_error_and_other_refusals_are(programs: Programs) -> None:
    programs.say("scancel", error="scancel: error: Kill job error on job id 77: Invalid job id", code=1)
    scheduler.cancel(["77"])
    programs.say("scancel", error="Access/permission denied", code=1)
    with pytest.raises(BenchError, match="scancel: Access/permission denied"):
        scheduler.cancel(["77"])
