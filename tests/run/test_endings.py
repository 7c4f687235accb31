"""How a run that is stopped ends: exit codes, and what is on record."""

import os
import signal
import sys
from pathlib import Path

import pytest

from bench.base import devices
from bench.run import launch
from bench.run.cell import run_cell
from bench.run.process import Exit, HowToRun, Outcome
from bench.run.store import CellDir, WorkState
from bench.run.work import Work
from tests.support.running import plan_dots

pytestmark = pytest.mark.slow


class Signals:
    """Sends this process a signal at its first looks at what runs."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)

    def started(self, work: Work) -> None: ...

    def tick(self) -> None:
        if self.numbers:
            os.kill(os.getpid(), self.numbers.pop(0))

    def ended(self, outcome: Outcome) -> None: ...

    def stopping(self) -> None: ...


DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


@pytest.mark.silent
def test_second_interrupt_is_on_record_as_that_and_not_as_lack_of_memory(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HowToRun, "command", lambda self, work: [sys.executable, "-c", DEAF])
    monkeypatch.setattr(launch, "POLL_SECONDS", 1.0)  # the process has to be deaf by then
    _, work = plan_dots(tmp_path)
    (outcome,), code = launch.run(
        [work], 1, lambda *_: HowToRun(), Signals(signal.SIGINT, signal.SIGINT), "test"
    )
    assert code == 130
    assert (outcome.status.state, outcome.status.cause) == (WorkState.PREEMPTED, None)
    assert outcome.status.message == "killed by a second interrupt; it continues from its last checkpoint"


@pytest.mark.silent
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_exit_code_says_which_signal_ended_the_run(
    number: int, code: int, tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HowToRun, "command", lambda self, work: ["sleep", "60"])
    _, work = plan_dots(tmp_path)
    outcomes, ended = launch.run([work], 1, lambda *_: HowToRun(), Signals(number), "test")
    assert ended == code
    assert [one.status.message for one in outcomes] == ["asked to stop"]


@pytest.mark.silent
def test_time_that_loading_used_up_is_told_as_that(tmp_path: Path, plugin: None) -> None:
    _, work = plan_dots(tmp_path)
    assert run_cell(CellDir(work.directory.path), 0.0) is Exit.STOPPED
    assert "used up without a step: 0 s were left after loading" in str(work.directory.status().message)


@pytest.mark.silent
def test_a_cell_whose_job_was_promised_a_gpu_fails_without_one_and_the_reason_is_on_record(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not compute on the CPU, a thousand times as long, under the same name."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv(devices.PROMISED, "1")
    _, work = plan_dots(tmp_path)
    assert run_cell(CellDir(work.directory.path), None) is Exit.FAILED
    status = work.directory.status()
    assert status.state is WorkState.FAILED
    assert str(status.message).startswith("this job asked for 1 GPUs, and torch ")
    assert not work.log.exists()
    monkeypatch.setenv(devices.VARIABLE, "cpu")
    assert run_cell(CellDir(work.directory.path), None) is Exit.DONE
