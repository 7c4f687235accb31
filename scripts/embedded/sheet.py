"""A contact sheet of samples with their prompts, to look at."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bench.data.prompts.emoji import heldout_prompts
from scripts.embedded.evaluate import load_pipeline, sample

SHOWN: tuple[str, ...] = (
    "a red apple on a white background",
    "a dog face on a blue background",
    "a doughnut on a pink background, fluent style",
    "a rocket on a black background",
    "a tiger face on a green background, twemoji style",
    "a sunflower on a purple background",
    "an airplane on a pink background",
    "a strawberry on a yellow background, noto style",
    "a whale on a yellow background",
    "a cat face on a white background",
    "a bicycle on a green background",
    "a carrot on a white background",
    "an octopus on a red background",
    "a penguin on a gray background",
    "a house on a blue background, fluent style",
    "a frog on an orange background",
    "a small fox on a white background",
    "a balloon at the top right on a blue background",
    "a rocket flying up on a purple background",
    "a butterfly tilted left on a green background",
    "a snowman upside down on a pink background",
    "a fish on the left on a yellow background",
    "a star falling on a black background",
    "a big pizza on a gray background",
)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_SCALE, _GAP, _LABEL, _COLUMNS = 2, 12, 50, 8


def _wrapped(draw: ImageDraw.ImageDraw, text: str, font: Font, width: int) -> str:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and draw.textlength(longer, font=font) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def draw_sheet(sections: list[tuple[str, Tensor, list[str]]]) -> Image.Image:
    """One sheet of several titled grids; pictures in [−1, 1], [N, 3, 64, 64], each with its label below."""
    small, large = ImageFont.load_default(11), ImageFont.load_default(17)
    cell, row, title = 64 * _SCALE + _GAP, 64 * _SCALE + _LABEL, 40
    rows = [-(-len(x) // _COLUMNS) for _, x, _ in sections]
    sheet = Image.new("RGB", (_COLUMNS * cell + _GAP, sum(rows) * row + title * len(sections)), "white")
    draw = ImageDraw.Draw(sheet)
    top = 0
    for (heading, pictures, labels), count in zip(sections, rows, strict=True):
        draw.text((_GAP, top + 12), heading, fill="black", font=large)
        top += title
        pixels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        for k, (array, label) in enumerate(zip(pixels, labels, strict=True)):
            x, y = _GAP + k % _COLUMNS * cell, top + k // _COLUMNS * row
            size = (64 * _SCALE, 64 * _SCALE)
            sheet.paste(Image.fromarray(array).resize(size, Image.Resampling.BICUBIC), (x, y))
            draw.rectangle((x, y, x + size[0] - 1, y + size[1] - 1), outline=(225, 225, 225))
            text = _wrapped(draw, label, small, size[0] + 6)
            draw.multiline_text((x, y + size[1] + 3), text, fill=(60, 60, 60), font=small, spacing=1)
        top += count * row
    return sheet


def make_sheet(weights: Path, target: Path) -> Path:
    """Sample the pipeline in `weights/sd` and write the sheet as PNG to `target`."""
    pipeline: StableDiffusionPipeline = load_pipeline(weights / "sd")
    texts, unseen = list(SHOWN), heldout_prompts()[:16]
    sections = [
        ("Guidance 1 (where fine-tuning starts)", sample(pipeline, texts, 1.0), texts),
        ("Guidance 4", sample(pipeline, texts, 4.0), texts),
        ("Combinations never trained on, guidance 4", sample(pipeline, unseen, 4.0), unseen),
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(sections).save(target)
    return target
