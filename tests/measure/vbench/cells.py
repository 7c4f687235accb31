"""Cells of `vbench generate` and `vbench score` without a command line."""

from pathlib import Path
from typing import Any

from bench.measure.vbench import jobs
from bench.measure.vbench.jobs import Part, ScorePart, VideosPart
from bench.run.store import CellDir


def videos_part(out: Path, **changes: Any) -> VideosPart:
    """The first half of ten videos."""
    settings: dict[str, Any] = {
        "work": jobs.GENERATE,
        "videos": str(out),
        "model": "tiny-video",
        "name": "tiny-video",
        "lora": None,
        "settings": (),
        "dimensions": ("scene",),
        "subset": 2,
        "per_prompt": None,
        "seed": 0,
        "batch": 1,
        "fps": None,
        "part": 1,
        "parts": 2,
    }
    return VideosPart(**settings | changes)


def score_part(videos: Path, **changes: Any) -> ScorePart:
    """Motion smoothness of custom videos."""
    settings: dict[str, Any] = {
        "work": jobs.SCORE,
        "videos": str(videos),
        "out": str(videos.parent),
        "dimension": "motion_smoothness",
        "custom": True,
        "prompts_file": None,
        "device": "cpu",
        "python": None,
        "static_filter": True,
        "timeout": None,
    }
    return ScorePart(**settings | changes)


def planned(part: Part, directory: Path) -> CellDir:
    """Its cell, in the jobs of a directory."""
    cell = jobs.jobs_of(directory).cell(part.id)
    cell.write_config(part)
    return cell
