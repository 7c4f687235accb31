"""Two processes and one video."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from bench.measure.vbench import suite, video_locks
from bench.measure.vbench.dimensions import DIMENSIONS
from bench.measure.vbench.suite import Video
from bench.measure.vbench.video_locks import VideoLocks

VIDEOS = suite.videos([DIMENSIONS["scene"]], 1)


@contextmanager
def other(out: Path, *videos: Video) -> Iterator[int]:
    """Another process that is making these; the context has its id."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        theirs = VideoLocks(out)
        os.write(writer, b"1" if all(map(theirs.take, videos)) else b"0")
        signal.pause()
    try:
        assert os.read(reader, 1) == b"1"
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def make(out: Path, video: Video) -> None:
    """As if it were a video."""
    out.mkdir(exist_ok=True)
    (out / video.name).write_bytes(b"video")


def test_a_video_is_one_processs_until_that_gives_it_or_dies(tmp_path: Path) -> None:
    first, second = VIDEOS[:2]
    with closing(VideoLocks(tmp_path / "videos")) as mine:
        with other(tmp_path / "videos", first):
            assert not mine.take(first)
            assert mine.take(second)
        assert mine.take(first)
    with other(tmp_path / "videos", first, second):
        pass


def test_rounds_leave_out_what_is_there_and_what_others_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_locks, "LOOK_SECONDS", 0.01)
    out, (a, b, c, d, e) = tmp_path / "videos", VIDEOS
    make(out, a)
    with closing(VideoLocks(out)) as mine, other(out, b, c) as pid:
        rounds = mine.batches(VIDEOS, 2)
        assert next(rounds) == ([d, e], [a])
        for video in (d, e):
            make(out, video)
        assert next(rounds) == ([], [])  # waits
        make(out, b)  # by the other, which still has c
        assert next(rounds) == ([], [b])
        os.kill(pid, signal.SIGKILL)
        assert next(found for found in rounds if found[0]) == ([c], [])
        make(out, c)
        assert next(rounds, None) is None


def test_places_of_all_videos_differ() -> None:
    every = suite.videos(tuple(DIMENSIONS.values()))
    assert len({video_locks._byte(video) for video in every}) == len(every) == 6220
