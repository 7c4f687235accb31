"""VBench's prompt suite as a list of videos: which prompts, how many of each, under which file names.

`VBench_full_info.json` lists 946 prompts with their dimensions; two are listed twice, so there are 944 names.
Every prompt has 5 videos, those of temporal_flickering 25. No torch in here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.base.errors import BenchError
from bench.measure.vbench.dimensions import Dimension

FULL_INFO = Path(__file__).parents[2] / "data" / "prompts" / "data" / "vbench_full_info.json"


@dataclass(frozen=True)
class Video:
    """One video to be made. place: of its prompt among the suite's distinct prompts, in their order."""

    prompt: str
    place: int
    number: int

    @property
    def name(self) -> str:
        """`{prompt}-{number}.mp4`, what VBench looks for."""
        return f"{self.prompt}-{self.number}.mp4"


@cache
def full_info() -> tuple[dict[str, Any], ...]:
    """The suite as VBench has it: {"prompt_en", "dimension": […], "auxiliary_info"?}."""
    return tuple(json.loads(FULL_INFO.read_text(encoding="utf-8")))


@cache
def distinct() -> tuple[str, ...]:
    """Every prompt once, in the suite's order."""
    return tuple(dict.fromkeys(entry["prompt_en"] for entry in full_info()))


def prompts_of(dimension: Dimension, subset: int | None = None) -> list[str]:
    """A dimension's prompts; with `subset` that many of them, spread over the list by a hash of their text.

    A larger subset contains a smaller one, and dimensions that share prompts share the chosen ones too.
    """
    found = list(dict.fromkeys(e["prompt_en"] for e in full_info() if dimension.name in e["dimension"]))
    if subset is None or subset >= len(found):
        return found
    ranked = sorted(found, key=lambda prompt: hashlib.sha256(prompt.encode()).digest())
    kept = set(ranked[:subset])
    return [prompt for prompt in found if prompt in kept]


def videos(
    dimensions: Sequence[Dimension], subset: int | None = None, per_prompt: int | None = None
) -> list[Video]:
    """The videos that these dimensions need, each once, prompt by prompt in the suite's order.

    per_prompt: fewer videos of each prompt than the official 5 and 25.
    """
    wanted: dict[str, int] = {}
    for dimension in dimensions:
        count = dimension.videos_per_prompt
        count = count if per_prompt is None else min(count, per_prompt)
        for prompt in prompts_of(dimension, subset):
            wanted[prompt] = max(count, wanted[prompt]) if prompt in wanted else count
    return [
        Video(prompt, place, number)
        for place, prompt in enumerate(distinct())
        if prompt in wanted
        for number in range(wanted[prompt])
    ]


def shard(text: str | None) -> tuple[int, int]:
    """K and N of `K/N`, which stands for every N-th video from the K-th on; 1 and 1 for None.

    Raises BenchError if K is not from 1 to N.
    """
    part, _, parts = (text or "1/1").partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise BenchError(f"--shard {text}: expected K/N with K from 1 to N, such as 3/8")
    return int(part), int(parts)


def complete(path: Path) -> bool:
    """Whether a video is there. They are moved into place when they are finished, so there is no half one."""
    return path.is_file() and path.stat().st_size > 0


def present(directory: Path, dimension: Dimension) -> tuple[list[Video], int]:
    """The dimension's videos that lie in a directory, and how many the full suite has.

    Of temporal_flickering's 25 videos of a prompt, all count here.
    """
    official = videos([dimension])
    names = {path.name for path in directory.iterdir()}
    return [video for video in official if video.name in names], len(official)
