"""Before and after on the page: every picture by itself, so that two of a prompt can be compared closely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from bench.base.filmstrip import frames_in
from bench.report.filmstrips import FRAME, FRAMES, chosen
from bench.report.sheet import GridRow, score_text

SIDE, SMALL_SIDE, FEW = 320, 224, 64  # pixels of the longer side of a picture, where there are few or more
LOSSLESS = 128  # pixels up to which a picture is small enough to be stored as it is


@dataclass(frozen=True)
class Shot:
    """A method's picture of one prompt as WebP: the frames of a clip side by side.

    shape: width over height of a frame.
    """

    label: str
    note: str
    score: str
    frames: int
    shape: float
    webp: bytes


@dataclass(frozen=True)
class PromptShots:
    """The pictures of one prompt from the same noise, the base model's first."""

    prompt: str
    shots: tuple[Shot, ...]


def shots(rows: Sequence[GridRow], columns: Sequence[int], prompts: Sequence[str]) -> list[PromptShots]:
    """All pictures, prompt by prompt."""
    side = SIDE if sum(len(row.pictures) for row in rows) <= FEW else SMALL_SIDE
    return [
        PromptShots(
            prompts[n] if n < len(prompts) else f"prompt {n}",
            tuple(_shot(row, n, side) for row in rows if n in row.pictures),
        )
        for n in columns
    ]


def _shot(row: GridRow, column: int, side: int) -> Shot:
    score = row.scores.get(column, math.nan)
    frames = _frames(row.pictures[column], side)
    width, height = frames[0].size
    strip = Image.new("RGB", (width * len(frames), height))
    for n, frame in enumerate(frames):
        strip.paste(frame, (n * width, 0))
    text = score_text(score) if math.isfinite(score) else ""
    return Shot(row.label, row.note, text, len(frames), width / height, _webp(strip, max(width, height)))


def _frames(path: Path, side: int) -> list[Image.Image]:
    """The picture, or the frames that are shown of a clip; never enlarged."""
    with Image.open(path) as stored:
        count = frames_in(stored)
        width, height = stored.width // count, stored.height
        strip = stored.convert("RGB")
    scale = min(1.0, (side if count == 1 else FRAME) / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    cut = (strip.crop((n * width, 0, (n + 1) * width, height)) for n in chosen(count, FRAMES))
    return [frame.resize(size, Image.Resampling.LANCZOS) for frame in cut]


def _webp(image: Image.Image, side: int) -> bytes:
    stream = BytesIO()
    image.save(stream, "WEBP", lossless=side <= LOSSLESS, quality=80, method=4)
    return stream.getvalue()
