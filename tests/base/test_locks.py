"""Locks, and file systems without them."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from bench.base.errors import BenchError
from bench.base.locks import check_locks, lock
from bench.cli.doctor import machine
from bench.cli.doctor.lines import Mark
from bench.run import launch
from bench.run.store import CellDir, ResultsDir

pytestmark = pytest.mark.silent


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Lustre without -o flock, and NFS without lockd, answer."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_file_system_without_locks_is_one_message_before_anything_runs(
    tmp_path: Path, no_locks: None
) -> None:
    with pytest.raises(BenchError, match=r"locks no files .*-o flock.*lockd.*--out"):
        launch.check_disk(ResultsDir(tmp_path / "results"), 3)
    with pytest.raises(BenchError, match="locks no files"), CellDir(tmp_path / "cell").locked():
        pass


def test_file_system_without_locks_is_told_by_doctor(
    tmp_path: Path, no_locks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    found = {line.name: line for line in reversed(list(machine.disks(tmp_path)))}
    assert found["results"].mark is Mark.BAD and "locks no files" in found["results"].text
    assert found["URL cache"].mark is Mark.NOTE and "locks no files" in found["URL cache"].text


def test_check_of_locks_leaves_nothing_behind(tmp_path: Path) -> None:
    check_locks(tmp_path / "deep" / "results")
    assert list(tmp_path.iterdir()) == []


def test_locked_file_is_not_locked_twice(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as one, (tmp_path / "a").open("w") as two:
        assert lock(one, tmp_path)
        assert not lock(two, tmp_path)
