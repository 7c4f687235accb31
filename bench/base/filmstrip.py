"""Filmstrips: a video's frames side by side in one PNG, whose text field `frames` counts them. No torch."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

FRAMES = "frames"


def frames_in(image: Image.Image) -> int:
    """How many frames stand side by side in a picture: more than one in a filmstrip of ours."""
    text = str(image.info[FRAMES]) if FRAMES in image.info else ""
    count = int(text) if text.isdecimal() else 1
    return count if count > 0 and image.width % count == 0 else 1


def broken_picture(file: Path) -> str | None:
    """Why a picture cannot be shown; None if it can."""
    try:
        with Image.open(file) as picture:
            picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        return f"no picture ({type(error).__name__})"
    return None
