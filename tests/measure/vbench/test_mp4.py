"""Videos that are written are read back as they were, by the reader that VBench uses."""

import importlib
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.base.errors import BenchError
from bench.measure.vbench import mp4
from tests.measure.vbench.videos import moving

needs_encoder = pytest.mark.skipif(not all(map(find_spec, mp4.PACKAGES)), reason="pip install -e '.[vbench]'")


def read(path: Path) -> tuple[np.ndarray, float]:
    """Frames uint8 [F, H, W, 3] (RGB), and frames per second."""
    pytest.importorskip("cv2", reason="`make scorers`")
    cv2: Any = importlib.import_module("cv2")
    video, found = cv2.VideoCapture(str(path)), []
    while True:
        there, frame = video.read()
        if not there:
            return np.stack(found), float(video.get(cv2.CAP_PROP_FPS))
        found.append(frame[..., ::-1])


@needs_encoder
@pytest.mark.parametrize("fps", [8.0, 12.5])
def test_a_video_is_read_back_as_it_was(tmp_path: Path, fps: float) -> None:
    """Every frame in its place, colours of squares within a few levels: 4:2:0 and quantisation."""
    frames = moving(16, frames=9)
    mp4.write_mp4(tmp_path / "new" / "a [b] c's-0.mp4", frames, fps)
    found, rate = read(tmp_path / "new" / "a [b] c's-0.mp4")
    assert found.shape == frames.shape
    assert rate == pytest.approx(fps)
    inner = np.s_[:, 3::8, 3::8]  # the middle of each square
    error = np.abs(found[inner].astype(int) - frames[inner].astype(int))
    assert error.mean() < 4
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a [b] c's-0.mp4"]


@needs_encoder
@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        (np.zeros((3, 15, 16, 3), np.uint8), 8.0, "even sizes"),
        (np.zeros((0, 16, 16, 3), np.uint8), 8.0, "expected frames"),
        (np.zeros((3, 16, 16), np.uint8), 8.0, "expected frames"),
        (np.zeros((3, 16, 16, 3), np.float32), 8.0, "expected frames"),
        (np.zeros((3, 16, 16, 3), np.uint8), 0.0, "frames per second"),
    ],
)
def test_frames_that_are_no_video_are_refused(tmp_path: Path, frames: Any, fps: float, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        mp4.write_mp4(tmp_path / "a.mp4", frames, fps)
    assert not list(tmp_path.iterdir())


@needs_encoder
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match=r"cannot write .*file/a\.mp4"):
        mp4.write_mp4(tmp_path / "file" / "a.mp4", moving(0), 8)


def test_without_an_encoder_the_command_that_installs_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mp4, "PACKAGES", ("no_such_encoder",))
    with pytest.raises(BenchError, match=r"\.\[vbench\]"):
        mp4.require_encoder()


@needs_encoder
def test_a_video_that_its_encoder_cut_short_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if ffmpeg had ended early, and content."""
    ffmpeg: Any = importlib.import_module("imageio_ffmpeg")
    whole = ffmpeg.write_frames

    def stopped(*arguments: Any, **options: Any) -> Generator[None, Any]:
        writer, given = whole(*arguments, **options), 0
        writer.send(None)
        try:
            while True:
                frame = yield
                given += 1
                if given <= 4:
                    writer.send(frame)
        finally:
            writer.close()

    monkeypatch.setattr(ffmpeg, "write_frames", stopped)
    with pytest.raises(BenchError, match="ffmpeg wrote 4 of 6 frames"):
        mp4.write_mp4(tmp_path / "a-0.mp4", moving(16), 8.0)
    assert not list(tmp_path.iterdir())
