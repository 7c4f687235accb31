"""Requests of `vbench generate` and `vbench score` without a command line, and their jobs."""

from pathlib import Path
from typing import Any

from bench.measure.vbench.jobs import Request, jobs_of
from bench.measure.vbench.score_request import ScoreRequest
from bench.measure.vbench.videos_request import VideosRequest
from bench.run.store import CellDir


def videos_request(out: Path, **changes: Any) -> VideosRequest:
    """The first half of ten videos."""
    settings: dict[str, Any] = {
        "videos": out,
        "model": "tiny-video",
        "name": "tiny-video",
        "dimensions": ("scene",),
        "subset": 2,
        "part": 1,
        "parts": 2,
    }
    return VideosRequest(**settings | changes)


def score_request(videos: Path, **changes: Any) -> ScoreRequest:
    """Motion smoothness of custom videos."""
    settings: dict[str, Any] = {
        "videos": videos,
        "out": videos.parent,
        "dimension": "motion_smoothness",
        "custom": True,
        "device": "cpu",
    }
    return ScoreRequest(**settings | changes)


def planned(request: Request, directory: Path) -> CellDir:
    """The directory of its job, among the jobs of a directory."""
    cell = jobs_of(directory).cell(request.id)
    cell.write_config(request)
    return cell
