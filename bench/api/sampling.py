"""`bench.sample`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from bench.api import words
from bench.api.words import Settings

if TYPE_CHECKING:
    from PIL.Image import Image


def sample(
    prompt: str,
    model: str | None = None,
    lora: str | os.PathLike[str] | None = None,
    n: int = 4,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
    dcot: bool | None = None,
    device: str | None = None,
) -> list[Image]:
    """Draw pictures with a model, with or without a trained LoRA, as `bench sample`; in this process.

    model: by default the cell's, or tiny. lora: a cell's directory, or one with a LoRA in it. n: how many.
    seed: of the starting noise. settings: {"model.steps": 20}. dcot: prompts by step, by default as the cell
    was trained. device: "cpu", "cuda" or "auto"; the first call decides for all of the process. out: a
    directory that the pictures are written to as well, with their prompt beside them.

    Returns Pillow images; of a video its filmstrip, frames side by side. Raises BenchError for a mistake.
    """
    with words.asked_by(words.call(sample, locals()), device):
        from bench.base.media import still
        from bench.run.sample import draw, write

        adapter = None if lora is None else Path(lora)
        pictures = draw(prompt, model, adapter, n, seed, words.settings(settings), dcot)
    if out is not None:
        write(pictures, prompt, Path(out))
    return [still(picture) for picture in pictures]
