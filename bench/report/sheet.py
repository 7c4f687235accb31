"""What the sheets of pictures and of filmstrips share: a row's contents, fonts, lines of text."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from PIL import Image, ImageFont

INK, PALE, PAPER, RULE = "#1A1A1A", "#6E6E6E", "#FFFFFF", "#D8D8D8"


@dataclass(frozen=True)
class GridRow:
    """A method's pictures by column and their scores (nan: not scored)."""

    label: str
    note: str
    pictures: dict[int, Path]
    scores: dict[int, float]


@dataclass(frozen=True)
class Sheet:
    """A drawn sheet as png, and how many prompts it shows."""

    png: bytes
    prompts: int


def score_text(value: float) -> str:
    """A score in as few digits as tell pictures apart."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font that travels with matplotlib, so the picture is the same everywhere."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int, most: int) -> list[str]:
    """Lines no wider than `width` pixels where words allow; an ellipsis after the last of `most` lines."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1] + " …"]
    return lines


def encoded(image: Image.Image) -> bytes:
    """The sheet as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
