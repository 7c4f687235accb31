from pathlib import Path

import pytest

from bench.base.errors import BenchError
from bench.run.checkpoints import Checkpoints


def test_two_generations_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (5, 10, 15):
        checkpoints.write(step, f"state {step}".encode())
    assert [p.name[:8] for p in sorted(tmp_path.iterdir())] == ["00000010", "00000015"]
    assert checkpoints.read() == (b"state 15", [])


def test_writing_a_step_again_replaces_that_generation(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step, data in ((5, b"a"), (10, b"b"), (10, b"c")):
        checkpoints.write(step, data)
    assert [p.name[:8] for p in sorted(tmp_path.iterdir())] == ["00000005", "00000010"]
    assert checkpoints.read() == (b"c", [])


def test_damaged_newest_checkpoint_falls_back_to_the_one_before_with_a_message(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(5, b"good")
    checkpoints.write(10, b"to be damaged")
    newest = max(tmp_path.iterdir())
    newest.write_bytes(b"damaged")
    data, (message,) = checkpoints.read()
    assert data == b"good"
    assert message == f"{newest} is damaged: falling back to the checkpoint before it"
    assert not newest.exists()


def test_all_checkpoints_damaged_is_an_error_that_keeps_them(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (5, 10):
        checkpoints.write(step, b"good")
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BenchError, match=r"all checkpoints are damaged: .* again with --force"):
        checkpoints.read()
    assert len(list(tmp_path.iterdir())) == 2


def test_no_checkpoint_is_not_an_error(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").read() == (None, [])
