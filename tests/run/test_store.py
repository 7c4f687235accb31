import multiprocessing
import os
import resource
from pathlib import Path

import pytest

from bench.base.errors import BenchError
from bench.base.files import append_rows, cut_rows, read_rows, write_atomically
from bench.run.checkpoints import Checkpoints
from bench.run.store import CellDir, CellInUse, WorkState


def in_child(function, *arguments: object) -> int:  # type: ignore[no-untyped-def]
    """Run in a process of its own, because limits cannot be raised again; its exit code."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def test_atomic_write_replaces_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "status.json"
    write_atomically(file, "old")
    write_atomically(file, b"new")
    assert file.read_text() == "new"
    assert list(file.parent.iterdir()) == [file]


def _write_on_a_full_disk(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    with pytest.raises(BenchError, match=r"no space left to write .*big\. What was written before is intact"):
        write_atomically(folder / "big", b"x" * 1000)
    with pytest.raises(BenchError, match=r"no space left to write .*log\.jsonl"):
        append_rows(folder / "log.jsonl", [{"step": 2, "text": "x" * 1000}])
    with pytest.raises(BenchError, match="no space left"):
        Checkpoints(folder / "checkpoint").write(2, b"x" * 1000)


def test_full_disk_is_one_message_and_earlier_files_stay_intact(tmp_path: Path) -> None:
    write_atomically(tmp_path / "big", b"before")
    append_rows(tmp_path / "log.jsonl", [{"step": 1}])
    Checkpoints(tmp_path / "checkpoint").write(1, b"y" * 50)
    assert in_child(_write_on_a_full_disk, tmp_path) == 0
    assert (tmp_path / "big").read_bytes() == b"before"
    assert read_rows(tmp_path / "log.jsonl") == [{"step": 1}]
    assert Checkpoints(tmp_path / "checkpoint").read() == (b"y" * 50, [])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big", "checkpoint", "log.jsonl"]


def test_half_written_line_is_not_a_row_and_goes_at_the_cut(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    append_rows(log, [{"step": n, "text": "é"} for n in (1, 2, 3)])
    with log.open("a") as stream:
        stream.write('{"step": 4, "te')
    assert [row["step"] for row in read_rows(log)] == [1, 2, 3]
    cut_rows(log, 2)
    assert log.read_text() == '{"step": 1, "text": "é"}\n{"step": 2, "text": "é"}\n'


def test_damaged_line_inside_a_log_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(BenchError, match="damaged"):
        read_rows(tmp_path / "log")


def test_missing_log_has_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "none") == []


def test_nan_is_refused_in_logs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        append_rows(tmp_path / "log", [{"step": 1, "reward_mean": float("nan")}])


def _try_to_lock(path: Path) -> None:
    message = r"is in use by process .*: two runs write the same cell"
    with pytest.raises(CellInUse, match=message), CellDir(path).locked(patience=0.2):
        pass


def test_second_process_on_a_cell_gets_a_clear_message(tmp_path: Path) -> None:
    with CellDir(tmp_path / "cell").locked():
        assert in_child(_try_to_lock, tmp_path / "cell") == 0
    with CellDir(tmp_path / "cell").locked():
        pass


def _lock_and_die(path: Path) -> None:
    with CellDir(path).locked():
        os._exit(7)


def test_lock_dies_with_its_process(tmp_path: Path) -> None:
    assert in_child(_lock_and_die, tmp_path / "cell") == 7
    with CellDir(tmp_path / "cell").locked(patience=0):
        pass


def test_status_is_pending_before_anything_was_written_and_remembers_what_was(tmp_path: Path) -> None:
    cell = CellDir(tmp_path)
    assert cell.status().state is WorkState.PENDING
    cell.write_status(WorkState.TIMEOUT, 12, 3.5, "late")
    status = cell.status()
    assert (status.state, status.step, status.seconds, status.message) == (WorkState.TIMEOUT, 12, 3.5, "late")
    assert status.pid == os.getpid()


@pytest.mark.silent
def test_status_of_another_schema_version_is_damaged_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"schema_version": 99, "state": "sleeping"}')
    status = CellDir(tmp_path).status()
    assert status.state is WorkState.DAMAGED
    assert "status.json: damaged: no status of schema version 1" in (status.message or "")
    assert "\n" not in (status.message or "")


def test_wipe_keeps_the_lock_alone(tmp_path: Path) -> None:
    cell = CellDir(tmp_path / "cell")
    with cell.locked():
        cell.write_status(WorkState.DONE, 1, 1.0)
        (cell.path / "lora").mkdir()
        (cell.path / "lora" / "weights").touch()
        cell.wipe()
    assert [p.name for p in cell.path.iterdir()] == ["lock"]
