"""Small videos for tests, and result files as VBench writes them."""

import json
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import numpy as np
from rich.console import Console
from typer.testing import CliRunner, Result

from bench.cli.main import app
from bench.measure.vbench.mp4 import Frames, write_mp4

PROMPT = "In a still frame, a stop sign"  # the suite's first, of temporal_flickering


def moving(speed: int, *, frames: int = 6, size: int = 64, seed: int = 0) -> Frames:
    """A pattern of squares that moves `speed` pixels to the right per frame, uint8 [F, H, W, 3]."""
    squares = np.random.default_rng(seed).integers(0, 255, (size // 8, size // 8, 3), dtype=np.uint8)
    picture = squares.repeat(8, 0).repeat(8, 1)
    return np.stack([np.roll(picture, speed * n, 1) for n in range(frames)])


def write_suite(directory: Path, speeds: Mapping[int, int], prompt: str = PROMPT) -> Path:
    """`{prompt}-{number}.mp4` for each number → speed."""
    for number, speed in speeds.items():
        write_mp4(directory / f"{prompt}-{number}.mp4", moving(speed), 8)
    return directory


def write_result(path: Path, scores: Mapping[str, float]) -> Path:
    """A result file in VBench's own format, one video per dimension."""
    tree = {
        name: [score, [{"video_path": "a-0.mp4", "video_results": score}]] for name, score in scores.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree))
    return path


def score(videos: Path, *arguments: str) -> Result:
    """`bench vbench score` in this process."""
    given = ["vbench", "score", str(videos), *arguments]
    with mock.patch("bench.cli.vbench.console", Console(width=80)):
        return CliRunner().invoke(app, given, catch_exceptions=False)


def empty_videos(directory: Path, *names: str) -> Path:
    """Files that are no videos, for what looks at names alone."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_bytes(b"no video")
    return directory
