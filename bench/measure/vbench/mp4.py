"""Video files, encoded by imageio-ffmpeg where it is installed, else by PyAV: H.264, nearly lossless.

VBench reads its videos with OpenCV and decord, whatever encoded them.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.base.errors import BenchError

Frames = NDArray[np.uint8]
QUALITY = "12"  # constant rate factor of x264: 0 is lossless, 18 usually looks so
PACKAGES = ("imageio_ffmpeg", "av")


def encoder() -> str:
    """The import name of the package that will encode. Raises BenchError if neither is installed."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is not None:
            return package
    raise BenchError(
        "writing mp4 files needs imageio-ffmpeg or av, and neither is installed. Install:\n"
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
    write = _WRITERS[encoder()]
    temporary = path.with_name(f".{os.getpid()}.{path.stem[:80]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary, np.ascontiguousarray(frames), fps)
        temporary.replace(path)
    except OSError as error:
        why = error.strerror or str(error).partition("\n")[0]  # imageio adds the whole command
        raise BenchError(f"cannot write {path}: {why}") from error
    finally:
        if temporary.is_file():
            temporary.unlink()


def _by_imageio(path: Path, frames: Frames, fps: float) -> None:
    ffmpeg: Any = importlib.import_module("imageio_ffmpeg")
    size = (frames.shape[2], frames.shape[1])
    output = ["-f", "mp4", "-crf", QUALITY, "-threads", "1"]
    stream = ffmpeg.write_frames(
        str(path), size, fps=fps, codec="libx264", quality=None, macro_block_size=2, output_params=output
    )
    stream.send(None)
    for frame in frames:
        stream.send(frame)
    stream.close()
    if not path.is_file() or not path.stat().st_size:
        raise OSError(f"ffmpeg wrote nothing to {path}")
    try:
        found, _ = ffmpeg.count_frames_and_secs(str(path))
    except RuntimeError as error:
        raise OSError("ffmpeg cannot read what it wrote") from error
    if found != len(frames):  # whatever ended ffmpeg early, such as a signal to all of a job
        raise OSError(f"ffmpeg wrote {found} of {len(frames)} frames")


def _by_av(path: Path, frames: Frames, fps: float) -> None:
    av: Any = importlib.import_module("av")
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.options = {"crf": QUALITY}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


_WRITERS: dict[str, Callable[[Path, Frames, float], None]] = {"imageio_ffmpeg": _by_imageio, "av": _by_av}
