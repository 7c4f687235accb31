import multiprocessing
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bench.base.errors import BenchError
from bench.run import claims, launch
from bench.run.claims import FILE, LEASE, Claim, Lease
from bench.run.slurm.queue import Queue
from bench.run.store import CellDir, CellInUse, WorkDir, WorkState
from tests.run.slurm.fakes import SUBMISSION, Programs, submitted
from tests.support.running import DOTS, PATIENCE, command, environment, numbers, plan_dots, status, train_dots

FORK = multiprocessing.get_context("fork")
CONTENDERS = 6


def alive(directory: WorkDir, claim: Claim, age: float) -> bool:
    """By the owner alone."""
    return claims.owner_lives(claim, age)


def elsewhere(token: str = "far") -> Claim:
    """Of a process on another machine."""
    return Claim(token=token, host="elsewhere", pid=1, born=0.0)


def aged(directory: WorkDir, seconds: float) -> None:
    """Let the claim be renewed so long ago."""
    then = time.time() - seconds
    os.utime(directory.path / FILE, (then, then))


def _contend(path: Path, ready: Callable[[], int], over: Callable[[], int]) -> None:
    mine = claims.of_this_process()
    ready()
    try:
        won = claims.take(WorkDir(path), mine, alive) is None
    except CellInUse:
        won = False
    over()  # the winner lives until all have tried
    os._exit(won)


def winners(path: Path) -> int:
    """How many of several processes that claim a cell at the same moment get it."""
    ready, over = FORK.Barrier(CONTENDERS), FORK.Barrier(CONTENDERS)
    processes = [FORK.Process(target=_contend, args=(path, ready.wait, over.wait)) for _ in range(CONTENDERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return sum(process.exitcode == 1 for process in processes)


def _claim_and_die(path: Path) -> None:
    assert claims.take(WorkDir(path), claims.of_this_process(), alive) is None
    os.kill(os.getpid(), signal.SIGKILL)


def dead_claim(path: Path) -> WorkDir:
    """A directory with the claim of a process that was killed."""
    path.mkdir(parents=True)
    process = FORK.Process(target=_claim_and_die, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (path / FILE).exists()
    return WorkDir(path)


@pytest.mark.slow
def test_of_many_processes_that_claim_a_cell_at_once_one_wins(tmp_path: Path) -> None:
    for n in range(10):
        (tmp_path / str(n)).mkdir()
        assert winners(tmp_path / str(n)) == 1
        assert [p.name for p in (tmp_path / str(n)).iterdir() if p.name != "lock"] == [FILE]


@pytest.mark.slow
def test_claim_of_a_killed_process_goes_to_one_of_many(tmp_path: Path) -> None:
    for n in range(10):
        dead_claim(tmp_path / str(n))
        assert winners(tmp_path / str(n)) == 1


def test_taking_over_from_the_dead_is_decided_and_done_under_the_cells_lock(tmp_path: Path) -> None:
    directory, locked = dead_claim(tmp_path / "cell"), list[bool]()

    def noting(asked: WorkDir, claim: Claim, age: float) -> bool:
        try:
            with asked.locked(patience=0):
                locked.append(False)
        except CellInUse:
            locked.append(True)
        return False

    assert claims.take(directory, claims.of_this_process(), noting) is None
    assert locked == [False, True]  # a first look, and the one that counts


def test_claim_of_a_living_process_is_told_and_kept(tmp_path: Path) -> None:
    process = psutil.Process(os.getppid())
    held = Claim(token="theirs", host=os.uname().nodename, pid=process.pid, born=process.create_time())
    directory = WorkDir(tmp_path)
    assert claims.take(directory, held, alive) is None
    assert claims.take(directory, claims.of_this_process(), alive) == held
    assert claims.read(directory) == (held, pytest.approx(0.0, abs=60))


def test_process_id_that_was_given_to_a_new_process_does_not_keep_a_claim(tmp_path: Path) -> None:
    mine = claims.of_this_process()
    before = mine.model_copy(update={"token": "old", "born": mine.born - 3600})
    assert claims.take(WorkDir(tmp_path), before, alive) is None
    assert claims.take(WorkDir(tmp_path), mine, alive) is None


def test_claim_from_another_machine_expires_when_it_is_not_renewed(tmp_path: Path) -> None:
    directory, mine = WorkDir(tmp_path), claims.of_this_process()
    assert claims.take(directory, elsewhere(), alive) is None
    aged(directory, LEASE - 60)
    assert claims.take(directory, mine, alive) == elsewhere()
    aged(directory, LEASE + 1)
    assert claims.take(directory, mine, alive) is None
    assert claims.take(directory, elsewhere(), alive) == mine


def test_renewing_a_lease_keeps_the_claims_young_and_survives_one_that_was_given_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "RENEWED_EVERY", 0.0)
    kept, gone = WorkDir(tmp_path / "kept"), WorkDir(tmp_path / "gone")
    for directory in (kept, gone):
        directory.path.mkdir()
        assert claims.take(directory, claims.of_this_process(), alive) is None
        aged(directory, LEASE + 1)
    lease = Lease([kept, gone])
    claims.release(gone, lease.token)
    lease.renew()
    held = claims.read(kept)
    assert held is not None
    assert held[1] < LEASE / 2
    lease.end()
    assert claims.read(kept) is None


def test_claim_of_the_same_owner_can_be_taken_again(tmp_path: Path) -> None:
    mine = claims.of_this_process()
    assert claims.take(WorkDir(tmp_path), mine, alive) is None
    assert claims.take(WorkDir(tmp_path), claims.of_this_process(), alive) is None


def test_only_the_claims_own_token_gives_a_cell_free(tmp_path: Path) -> None:
    directory, mine = WorkDir(tmp_path), claims.of_this_process()
    assert claims.take(directory, mine, alive) is None
    claims.release(directory, "another")
    held = claims.read(directory)
    assert held is not None
    assert held[0] == mine
    claims.release(directory, mine.token)
    assert claims.read(directory) is None
    claims.release(directory, mine.token)  # there is none: nothing to do


def test_damaged_claim_is_one_message(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"token": "x"')
    with pytest.raises(BenchError, match=r"claim\.json: damaged: no claim\. If nothing runs or waits"):
        claims.take(WorkDir(tmp_path), claims.of_this_process(), alive)


def test_wipe_keeps_the_claim_and_one_that_is_just_being_made(tmp_path: Path) -> None:
    cell, mine = CellDir(tmp_path), claims.of_this_process()
    assert claims.take(cell, mine, alive) is None
    others = [f"{FILE}.host.7", f".{FILE}.host.7.7.tmp"]  # of a process between its writing and its link
    for name in (*others, "metrics.jsonl"):
        (tmp_path / name).touch()
    cell.wipe()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([FILE, *others])
    held = claims.read(cell)
    assert held is not None
    assert held[0] == mine


def test_force_starts_a_claimed_cell_again_under_the_same_claim(tmp_path: Path, plugin: None) -> None:
    train_dots(tmp_path, steps=1)
    (work,) = plan_dots(tmp_path, steps=2)
    ready, busy = launch.prepare([work], force=True)
    assert (ready, busy) == ([work], [])
    assert claims.read(work.directory) is not None
    assert work.directory.status().step == 0


def test_cell_that_ended_between_planning_and_claiming_is_not_run_again(tmp_path: Path, plugin: None) -> None:
    todo = plan_dots(tmp_path, steps=1)
    train_dots(tmp_path, steps=1)
    before = [status(CellDir(work.directory.path)) for work in todo]
    ready, ended = launch.prepare(todo, force=False)
    assert ready == []
    assert [outcome.ok for outcome in ended] == [True, True]
    assert [status(CellDir(work.directory.path)) for work in todo] == before
    assert [claims.read(work.directory) for work in todo] == [None, None]


def test_cells_of_a_submission_are_left_alone_and_the_message_names_the_job(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    todo = plan_dots(tmp_path / "out")
    submitted(tmp_path / "out", todo[1:])
    Programs(tmp_path, monkeypatch).queue("77_0|PENDING||Priority|N/A")
    ready, (busy,) = launch.prepare(todo, force=False)
    assert ready == todo[:1]
    assert not busy.ok
    told = f"it has SLURM job 77_0: see `python -m bench status {tmp_path / 'out'}`"
    assert busy.status.message == told
    held = claims.read(todo[1].directory)
    assert held is not None
    assert held[0].token == SUBMISSION


def test_cells_of_a_submission_are_left_alone_where_slurm_cannot_be_asked(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    todo = plan_dots(tmp_path / "out")[:1]
    submitted(tmp_path / "out", todo)
    Programs(tmp_path, monkeypatch)
    ready, (busy,) = launch.prepare(todo, force=False)
    assert ready == []
    assert busy.status.message is not None
    assert busy.status.message.endswith("SLURM cannot be asked from here whether it still runs")


def test_cell_whose_submitter_died_before_it_sent_anything_is_free(tmp_path: Path) -> None:
    directory = CellDir(tmp_path / "cells" / "one")
    dead_claim(directory.path)
    held = claims.read(directory)
    assert held is not None
    claim = held[0].model_copy(update={"submission": True, "token": SUBMISSION})
    (directory.path / FILE).write_text(claim.model_dump_json())
    assert claims.take(directory, claims.of_this_process(), Queue().alive) is None


@pytest.mark.slow
def test_two_runs_of_a_directory_at_once_run_each_cell_once(tmp_path: Path, plugin: None) -> None:
    arguments = ("--model", DOTS, "--methods", "push", "--steps", 3, "--seeds", "0,1,2")
    run = command("run", "--no-report", "--in-process", "--out", tmp_path / "out", *arguments)
    pair = [
        subprocess.Popen(run, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=PATIENCE)[0] for process in pair]
    started = [
        int(found[1]) for text in said if (found := re.search(r"^(\d+) cells, \d+ at a time", text, re.M))
    ]
    assert sum(started) == 4, said
    assert {process.returncode for process in pair} <= {0, 1}, said  # 1: the other has some of the cells
    train_dots(tmp_path / "alone", steps=3, seeds="0,1,2")
    for cell in (tmp_path / "out" / "cells").iterdir():
        assert CellDir(cell).status().state is WorkState.DONE
        assert not (cell / FILE).exists()
        if cell.name.startswith("push"):
            assert numbers(CellDir(cell)) == numbers(CellDir(tmp_path / "alone" / "cells" / cell.name))
