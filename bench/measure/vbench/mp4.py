"""Video files by imageio and ffmpeg: H.264, nearly lossless."""

from __future__ import annotations

import importlib
import importlib.util
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.base.errors import BenchError

Frames = NDArray[np.uint8]
QUALITY = 7.6  # imageio's scale, x264's constant rate factor 12: 0 is lossless, 18 usually looks so
PACKAGES = ("imageio", "imageio_ffmpeg")


def require_encoder() -> None:
    """Raise BenchError, with the command that installs one, if there is nothing to write videos with."""
    lacking = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if lacking:
        raise BenchError(
            f"writing mp4 files needs {' and '.join(lacking).replace('_', '-')}, not installed. Install:\n"
            "  pip install -e '.[vbench]' -c constraints.txt"
        )


def write_mp4(path: Path, frames: Frames, fps: float) -> None:
    """Write frames uint8 [F, H, W, 3] (RGB) at `fps` frames per second, the whole file or none.

    H and W must be even, as H.264 with yuv420p asks. Raises BenchError: odd or empty frames, no encoder, a
    path that cannot be written.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise BenchError(
            f"{path.name}: expected frames uint8 [F, H, W, 3], got {frames.dtype} {frames.shape}"
        )
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise BenchError(
            f"{path.name}: H.264 needs even sizes, these frames are {frames.shape[2]}×{frames.shape[1]}"
        )
    if not (math.isfinite(fps) and fps > 0):
        raise BenchError(f"{path.name}: {fps} frames per second")
    require_encoder()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=path.parent) as place:
            temporary = Path(place) / "video.mp4"
            _encode(temporary, frames, fps)
            temporary.replace(path)
    except OSError as error:
        why = error.strerror or str(error).partition("\n")[0]  # imageio adds the whole command
        raise BenchError(f"cannot write {path}: {why}") from error


def _encode(path: Path, frames: Frames, fps: float) -> None:
    imageio: Any = importlib.import_module("imageio.v3")
    ffmpeg: Any = importlib.import_module("imageio_ffmpeg")
    options = {"quality": QUALITY, "macro_block_size": 2, "output_params": ["-threads", "1"]}
    imageio.imwrite(path, frames, plugin="FFMPEG", fps=fps, codec="libx264", **options)
    try:
        found, _ = ffmpeg.count_frames_and_secs(str(path))
    except RuntimeError as error:
        raise OSError("ffmpeg cannot read what it wrote") from error
    if found != len(frames):  # whatever ended ffmpeg early, such as a signal to all of a job
        raise OSError(f"ffmpeg wrote {found} of {len(frames)} frames")
