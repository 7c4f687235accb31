"""Warm starts: copies of a process that has imported everything."""

import gc
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.forkserver import _forkserver
from pathlib import Path

import pytest
from tqdm import tqdm

from bench.run import launch, warm
from bench.run.process import HowToRun, Outcome
from bench.run.store import ResultsDir
from bench.run.work import Work
from tests.support.running import PATIENCE, bench, environment, numbers, plan_dots, run_dots


class Silent:
    """Watches nothing."""

    def started(self, work: Work) -> None: ...
    def tick(self) -> None: ...
    def ended(self, outcome: Outcome) -> None: ...
    def stopping(self) -> None: ...


def ended(process: warm.WarmProcess) -> int:
    """Its exit code, once it has ended."""
    latest = time.monotonic() + PATIENCE
    while (code := process.poll()) is None:
        assert time.monotonic() < latest
        time.sleep(0.05)
    return code


@pytest.mark.slow
def test_a_copy_prints_to_its_file_in_its_environment_and_ends_with_the_commands_code(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    out.write_text("before\n")
    for width in (60, 120):
        assert ended(warm.WarmProcess(["list"], out, os.environ | {"COLUMNS": str(width)})) == 0
        before, *lines = out.read_text().splitlines()
        assert before == "before" and width - 20 < max(map(len, lines)) <= width
    assert ended(warm.WarmProcess(["describe", "rlrr"], out, os.environ)) == 2
    assert "error: nothing is called 'rlrr'" in out.read_text()


@pytest.mark.slow
def test_a_copy_that_is_killed_says_by_what(tmp_path: Path) -> None:
    for end, number in (
        (warm.WarmProcess.kill, signal.SIGKILL),
        (warm.WarmProcess.terminate, signal.SIGTERM),
    ):
        process = warm.WarmProcess(["describe", "rlr"], tmp_path / "out.txt", os.environ)
        end(process)
        assert ended(process) == -number
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.usefixtures("plugin")
def test_cells_that_start_warm_have_the_numbers_of_cells_that_start_cold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    for place, is_warm in (("cold", False), ("warm", True)):
        monkeypatch.setattr(warm, "possible", lambda: is_warm)  # noqa: B023
        todo = plan_dots(tmp_path / place, seeds="0,1", steps=3)
        ready, _ = launch.prepare(todo, force=False)
        outcomes, _ = launch.run(ready, 2, lambda *_: HowToRun(), Silent(), "bench run")
        assert len(outcomes) == 3 and all(outcome.ok for outcome in outcomes)
    cold, hot = (ResultsDir(tmp_path / place).cells() for place in ("cold", "warm"))
    assert [c.id for c in cold] == [c.id for c in hot]
    assert [numbers(c) for c in cold] == [numbers(c) for c in hot]


def _bar_is_off() -> bool:
    return tqdm(range(1)).disable


def _garbage() -> tuple[bool, int, int]:
    return gc.isenabled(), gc.get_freeze_count(), len(gc.get_objects())


def test_a_copy_shows_no_progress_bars_and_does_not_search_imports_for_garbage() -> None:
    """Bars would fill the output of its cell, and a search takes half a second."""
    with ProcessPoolExecutor(1, mp_context=warm.context()) as process:
        assert process.submit(_bar_is_off).result(PATIENCE)
        enabled, frozen, searched = process.submit(_garbage).result(PATIENCE)
    assert enabled and frozen > 100_000 > searched


def test_one_piece_of_work_and_a_machine_with_a_gpu_start_cold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "GPU_DEVICES", ("no such device",))
    assert warm.worth_it(2) and not warm.worth_it(1)
    monkeypatch.setattr(warm, "GPU_DEVICES", ("null",))
    assert warm.has_gpu() and not warm.worth_it(2)


@pytest.mark.slow
def test_a_copy_can_be_copied_itself(tmp_path: Path) -> None:
    """So tests start cells of commands that were started warm."""
    done = run_dots(tmp_path / "out", "--steps", 2)
    assert done.returncode == 0, done.stderr
    assert bench("verify", tmp_path / "out").returncode == 0


@pytest.mark.slow
def test_a_signal_to_the_group_of_who_starts_copies_does_not_reach_their_server(tmp_path: Path) -> None:
    """`timeout 60 bench run …` sends it: the launcher stops its cells, which need their server until then."""
    assert ended(warm.WarmProcess(["list"], tmp_path / "out.txt", os.environ)) == 0
    server = vars(_forkserver)["_forkserver_pid"]
    assert os.getsid(server) == server != os.getsid(0)
