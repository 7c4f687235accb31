"""Filmstrips: a video's frames side by side in one PNG, whose text field `frames` counts them. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageFile, UnidentifiedImageError

FRAMES = "frames"
FRAME_MS = 125  # of a clip that plays: eight frames a second


def frames_in(image: Image.Image) -> int:
    """How many frames stand side by side in a picture: more than one in a filmstrip of ours."""
    text = str(image.info[FRAMES]) if FRAMES in image.info else ""
    count = int(text) if text.isdecimal() else 1
    return count if count > 0 and image.width % count == 0 else 1


@contextmanager
def opened(file: Path) -> Iterator[Image.Image]:
    """A picture's file. One that is cut short is an OSError, whatever another package told Pillow: VBench
    has it fill in grey."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with Image.open(file) as image:
            yield image
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def broken_picture(file: Path) -> str | None:
    """Why a picture cannot be shown; None if it can."""
    try:
        with opened(file) as picture:
            picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        return f"no picture ({type(error).__name__})"
    return None
