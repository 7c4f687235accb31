"""Filmstrips: a video's frames side by side in one PNG, whose text field `frames` counts them. No torch."""

from __future__ import annotations

from PIL import Image

FRAMES = "frames"


def frames_in(image: Image.Image) -> int:
    """How many frames stand side by side in a picture: more than one in a filmstrip of ours."""
    text = str(image.info[FRAMES]) if FRAMES in image.info else ""
    count = int(text) if text.isdecimal() else 1
    return count if count > 0 and image.width % count == 0 else 1
