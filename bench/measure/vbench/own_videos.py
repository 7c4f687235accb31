"""Whether a score in VBench's own format, [score, videos], follows from the videos that stand beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.base.errors import BenchError
from bench.measure.vbench.notation import NOTHING, plain

TOLERANCE = 5e-5  # half of what a table in percent shows
IN_PERCENT = ("imaging_quality",)  # its videos, while its score is a fraction
# What VBench may have counted a video for, its number of frames, besides counting each video once.
WEIGHTS: tuple[Callable[[Mapping[str, Any]], float], ...] = (
    lambda video: 1,
    lambda video: video["frame_count"],
    lambda video: video["cnt_per_video"],
    lambda video: len(video["frame_results"]),
)


def disagreement(path: Path, dimension: str, entry: Sequence[Any]) -> str:
    """What to say of a score that is no mean of its videos' scores, by videos or by frames; empty if it is.

    entry: [score, [{"video_path", "video_results", …}, …]]; a score that is not there is not looked at.
    Raises BenchError where no video, or no finite number for each, stands beside a score.
    """
    score, *rest = entry
    if plain(score).lower() in NOTHING:
        return ""
    videos = rest[0] if rest else None
    if not isinstance(videos, list) or not videos:
        raise BenchError(
            f"{path}: {dimension} is {score} with no video to rest on: score it again, or leave it out; a "
            "number from elsewhere goes into a table (.csv)"
        )
    if not isinstance(score, int | float) or not math.isfinite(score):
        raise BenchError(f"{path}: {dimension} is {score!r}, not a number")
    results = [_result(path, dimension, number, video) for number, video in enumerate(videos, start=1)]
    found = [mean for weight in WEIGHTS if (mean := _mean(results, videos, weight)) is not None]
    if any(abs(mean - score) <= TOLERANCE for mean in found):
        return ""
    own = f"the mean of its own {len(videos)} videos is {100 * found[0]:.2f} %"
    return f"the file says {100 * score:.2f} %, {own}"


def _result(path: Path, dimension: str, number: int, video: Any) -> float:
    value = video.get("video_results") if isinstance(video, dict) else None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise BenchError(
            f"{path}: {dimension}: video {number} has no number under video_results: score it again"
        )
    return value / 100 if dimension in IN_PERCENT else float(value)


def _mean(
    results: Sequence[float],
    videos: Sequence[Mapping[str, Any]],
    weight: Callable[[Mapping[str, Any]], float],
) -> float | None:
    """None where a video does not say its weight."""
    try:
        weights = [weight(video) for video in videos]
        total = sum(weights)
    except (KeyError, TypeError):  # TypeError: under these names stands something else
        return None
    return sum(w * r for w, r in zip(weights, results, strict=True)) / total if total else None
