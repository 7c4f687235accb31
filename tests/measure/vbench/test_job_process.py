"""One job in this process: how it ends, and how it goes on."""

import os
import signal
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.base.errors import BenchError
from bench.base.files import read_rows
from bench.measure.vbench import job_process, mp4
from bench.measure.vbench.dimension_status import read_status
from bench.run import recorded
from bench.run.process import Exit
from bench.run.store import Cause, WorkState
from tests.measure.vbench.requests import planned, score_request, videos_request
from tests.measure.vbench.toy import VideoToy
from tests.measure.vbench.videos import empty_videos

encodes = pytest.mark.skipif(not all(map(find_spec, mp4.PACKAGES)), reason="pip install -e '.[vbench]'")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No facts on record, no patience with late signals."""
    monkeypatch.setattr(recorded, "environment", lambda *_: {})
    monkeypatch.setattr(job_process, "LATE", 0.1)


@pytest.mark.slow
@encodes
def test_a_part_makes_its_videos_and_goes_on_where_it_was_stopped(
    tmp_path: Path, chain: VideoToy, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = planned(videos_request(tmp_path / "videos"), tmp_path / "videos")
    write = mp4.write_mp4

    def stopped(path: Path, frames: mp4.Frames, fps: float) -> None:
        write(path, frames, fps)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(mp4, "write_mp4", stopped)
        assert job_process.run_job(cell) is Exit.STOPPED
    status = cell.status()
    assert (status.state, status.step, status.message) == (WorkState.PREEMPTED, 1, "asked to stop")
    (first,) = (tmp_path / "videos").iterdir()
    made = first.stat().st_mtime_ns
    assert job_process.run_job(cell) is Exit.DONE
    assert (cell.status().state, cell.status().step) == (WorkState.DONE, 5)
    assert [row["step"] for row in read_rows(cell.metrics)] == [1, 2, 3, 4, 5]
    assert first.stat().st_mtime_ns == made
    assert job_process.run_job(cell) is Exit.DONE  # and does nothing


@encodes
def test_an_encoder_that_a_signal_to_the_whole_job_ended_is_no_failure(
    tmp_path: Path, chain: VideoToy, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = planned(videos_request(tmp_path / "videos"), tmp_path / "videos")

    def broken(path: Path, frames: mp4.Frames, fps: float) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise BenchError("cannot write: ffmpeg wrote 3 of 4 frames")

    monkeypatch.setattr(mp4, "write_mp4", broken)
    assert job_process.run_job(cell) is Exit.STOPPED
    assert cell.status().state is WorkState.PREEMPTED


@encodes
def test_a_part_fails_with_one_message(tmp_path: Path, chain: VideoToy) -> None:
    chain.pictures = True
    cell = planned(videos_request(tmp_path / "videos"), tmp_path / "videos")
    assert job_process.run_job(cell) is Exit.FAILED
    assert "makes pictures, not videos" in (cell.status().message or "")


def scored(tmp_path: Path, cache: Path, body: str) -> Any:
    """A cell that scores with a script for an interpreter."""
    empty_videos(cache / "amt_model", "amt-s.pth")
    videos = empty_videos(tmp_path / "videos", "a cat.mp4")
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{body}\n")
    python.chmod(0o755)
    return planned(score_request(videos, python=python), tmp_path / "scores")


def test_a_dimension_is_scored(tmp_path: Path, cache: Path) -> None:
    done = '{"state": "done", "message": "", "score": 0.5, "scored": 1, "results": [0.5, []]}'
    cell = scored(tmp_path, cache, f"echo '{done}' > $(dirname $2)/outcome.json")
    assert job_process.run_job(cell) is Exit.DONE
    assert (cell.status().state, cell.status().step) == (WorkState.DONE, 1)
    assert read_status(tmp_path / "scores")["motion_smoothness"].score == 0.5


@pytest.mark.parametrize(("body", "cause"), [("exit 7", None), ("kill -9 $$", Cause.KILLED)])
def test_a_dimension_fails(tmp_path: Path, cache: Path, body: str, cause: Cause | None) -> None:
    cell = scored(tmp_path, cache, body)
    assert job_process.run_job(cell) is Exit.FAILED
    assert (cell.status().state, cell.status().cause) == (WorkState.FAILED, cause)
    assert read_status(tmp_path / "scores")["motion_smoothness"].state == "failed"


def test_a_dimension_that_lacks_something_fails_with_what_to_do(tmp_path: Path, cache: Path) -> None:
    cell = scored(tmp_path, cache, "")
    (cache / "amt_model" / "amt-s.pth").unlink()
    assert job_process.run_job(cell) is Exit.FAILED
    message = cell.status().message or ""
    assert message.startswith("no weights: amt-s.pth") and "curl -L -o" in message


@pytest.mark.parametrize("to_all", [False, True])
def test_a_dimension_that_is_asked_to_stop_begins_again(
    tmp_path: Path, cache: Path, to_all: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """to_all: SLURM's signal ends the process that scores before it comes here."""
    monkeypatch.setattr(job_process, "LATE", 1000.0)
    ready = tmp_path / "ready"
    told = f"echo $$ > {ready}.new\nmv {ready}.new {ready}\n"
    cell = scored(tmp_path, cache, told + ("kill -15 $$" if to_all else "exec sleep 1000"))

    def signal_when_ready() -> None:
        while not ready.exists() or (to_all and psutil.pid_exists(int(ready.read_text()))):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=signal_when_ready)
    thread.start()
    assert job_process.run_job(cell) is Exit.STOPPED
    thread.join()
    assert (cell.status().state, cell.status().step) == (WorkState.PREEMPTED, 0)
    assert not read_status(tmp_path / "scores")
