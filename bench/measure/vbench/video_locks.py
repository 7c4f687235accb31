"""A lock for each video, so that no two processes make the same one, whatever each was asked for.

One file beside the videos, of which a process locks one byte for each video that it is making. The kernel
takes the lock back when the process ends in whatever way. Other machines see it where files can be locked.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.base.errors import BenchError
from bench.measure.vbench.dimensions import FLICKERING
from bench.measure.vbench.suite import Video, complete

LOOK_SECONDS = 0.5  # between two looks at videos that others are making
TAKEN = (errno.EACCES, errno.EAGAIN)


class VideoLocks:
    """The locks of this process on videos of one directory. `close` gives all of them back."""

    def __init__(self, out: Path) -> None:
        self.out = out
        path = out.with_name(out.name + ".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise BenchError(f"cannot write {path}: {error.strerror}") from error

    def close(self) -> None:
        """Give all locks back."""
        os.close(self._file)

    def take(self, video: Video) -> bool:
        """Whether the video is now this process's to make. Raises BenchError where nothing can be locked."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(video))
        except OSError as error:
            if error.errno in TAKEN:
                return False
            raise BenchError(
                f"{self.out}: this file system locks no files ({error.strerror}), so two processes could "
                "make the same video. Choose another --out"
            ) from error
        return True

    def give_back(self, video: Video) -> None:
        """Unlock a video, whether it was made or not."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _byte(video))

    def batches(self, videos: Sequence[Video], size: int) -> Iterator[tuple[list[Video], list[Video]]]:
        """Yield up to `size` videos to make now, and those that turned up meanwhile, until all are there.

        Videos that others are making are waited for, and are made here if the others die.
        """
        left = deque(videos)
        while left:
            mine, there, others = list[Video](), list[Video](), list[Video]()
            while left and len(mine) < size:
                video = left.popleft()
                if not complete(self.out / video.name) and not self.take(video):
                    others.append(video)
                elif complete(self.out / video.name):  # maybe between the look and the lock
                    self.give_back(video)
                    there.append(video)
                else:
                    mine.append(video)
            if not mine and not there:
                time.sleep(LOOK_SECONDS)
            yield mine, there
            for video in mine:
                self.give_back(video)
            left.extend(others)


def _byte(video: Video) -> int:
    return FLICKERING * video.place + video.number
