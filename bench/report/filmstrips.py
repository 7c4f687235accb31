"""Before and after of videos: a block per prompt, in it a filmstrip of the untuned model and one per method.

A strip is one clip, its frames in time order; a block's strips stand under one another, frame under frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from bench.base.filmstrip import frames_in
from bench.report.sheet import INK, PALE, PAPER, RULE, GridRow, Sheet, encoded, font, score_text, wrapped

BLOCKS = 4  # prompts on a sheet
FRAME, GAP, LINE_GAP, MARGIN = 160, 4, 6, 16  # pixels
FRAMES, LABEL, TEXT = 8, 220, 21  # frames of a strip; pixels of the labels beside them and of letters
LEAST = 480  # a sheet's width beside the labels, for the prompts of very short clips
TITLE_LINES, LABEL_LINES = 2, 4


@dataclass(frozen=True)
class Clip:
    """The frames that are shown of a clip, and their numbers from 0."""

    numbers: list[int]
    frames: list[Image.Image]


def film_sheets(rows: Sequence[GridRow], columns: Sequence[int], prompts: Sequence[str]) -> list[Sheet]:
    """Sheets of a few prompts each, all of them together."""
    sheets = []
    for first in range(0, len(columns), BLOCKS):
        some = columns[first : first + BLOCKS]
        sheets.append(Sheet(encoded(_Painter(rows, some).paint(prompts)), len(some)))
    return sheets


def chosen(count: int, most: int) -> list[int]:
    """Which of a clip's frames are shown: all, or `most` evenly spaced ones from the first to the last."""
    if count <= most:
        return list(range(count))
    return [round(k * (count - 1) / (most - 1)) for k in range(most)]


def clip_of(path: Path, most: int) -> Clip:
    """A filmstrip's frames, at most so many, resampled so that their longer side is FRAME."""
    with Image.open(path) as stored:
        count = frames_in(stored)
        width, height = stored.width // count, stored.height
        strip = stored.convert("RGB")
    scale = FRAME / max(width, height)
    size = (round(width * scale), round(height * scale))
    numbers = chosen(count, most)
    cut = (strip.crop((n * width, 0, (n + 1) * width, height)) for n in numbers)
    return Clip(numbers, [frame.resize(size, Image.Resampling.LANCZOS) for frame in cut])


class _Painter:
    def __init__(self, rows: Sequence[GridRow], columns: Sequence[int]) -> None:
        """Columns: the prompts, by number, that this sheet shows."""
        self.plain, self.bold = font("DejaVuSans", TEXT), font("DejaVuSans-Bold", TEXT)
        self.line = TEXT + LINE_GAP
        self.blocks = {
            n: [(row, clip_of(row.pictures[n], FRAMES)) for row in rows if n in row.pictures] for n in columns
        }
        self.left = MARGIN + LABEL
        widths = [len(c.frames) * (c.frames[0].width + GAP) - GAP for b in self.blocks.values() for _, c in b]
        self.right = self.left + max(*widths, LEAST)

    def paint(self, prompts: Sequence[str]) -> Image.Image:
        """Draw all blocks of the sheet, one below the other."""
        blocks = [self._block(n, prompts[n] if n < len(prompts) else f"prompt {n}") for n in self.blocks]
        space = 3 * MARGIN
        height = 2 * MARGIN + sum(block.height for block in blocks) + space * (len(blocks) - 1)
        sheet = Image.new("RGB", (self.right + MARGIN, height), PAPER)
        top = MARGIN
        for k, block in enumerate(blocks):
            if k:
                rule = top - space // 2
                ImageDraw.Draw(sheet).line((MARGIN, rule, self.right, rule), RULE, 2)
            sheet.paste(block, (0, top))
            top += block.height + space
        return sheet

    def _block(self, column: int, prompt: str) -> Image.Image:
        """A prompt, the frames' numbers, and the strip of every row that has one."""
        titles = self._wrapped(prompt, self.right - MARGIN, TITLE_LINES)
        strips = [self._strip(row, clip, column) for row, clip in self.blocks[column]]
        head = (len(titles) + 1) * self.line + GAP
        height = head + sum(s.height for s in strips) + GAP * (len(strips) - 1)
        block = Image.new("RGB", (self.right + MARGIN, height), PAPER)
        draw = ImageDraw.Draw(block)
        for k, line in enumerate(titles):
            draw.text((MARGIN, k * self.line), line, INK, self.bold)
        self._number(draw, self.blocks[column][0][1], len(titles) * self.line)
        top = head
        for strip in strips:
            block.paste(strip, (0, top))
            top += strip.height + GAP
        return block

    def _number(self, draw: ImageDraw.ImageDraw, clip: Clip, top: int) -> None:
        """The frames' numbers from 1, over the frames."""
        for k, number in enumerate(str(number + 1) for number in clip.numbers):
            middle = self.left + k * (clip.frames[0].width + GAP) + clip.frames[0].width // 2
            draw.text((middle, top), number if k else f"frame {number}", PALE, self.plain, anchor="ma")

    def _strip(self, row: GridRow, clip: Clip, column: int) -> Image.Image:
        """A row's label, note and score, and its frames."""
        score = row.scores.get(column, math.nan)
        text = score_text(score) if math.isfinite(score) else ""
        lines = self._beside(row, text)
        height = max(clip.frames[0].height, len(lines) * self.line)
        strip = Image.new("RGB", (self.right + MARGIN, height), PAPER)
        draw = ImageDraw.Draw(strip)
        for k, (line, bold) in enumerate(lines):
            place = (MARGIN, (height - len(lines) * self.line) // 2 + k * self.line)
            draw.text(place, line, INK if bold else PALE, self.bold if bold else self.plain)
        for k, frame in enumerate(clip.frames):
            left = self.left + k * (frame.width + GAP)
            strip.paste(frame, (left, 0))
            draw.rectangle((left, 0, left + frame.width - 1, frame.height - 1), outline=RULE)
        return strip

    def _beside(self, row: GridRow, score: str) -> list[tuple[str, bool]]:
        """The lines of the label, and whether they are bold."""
        names = self._wrapped(row.label, LABEL - 2 * GAP, LABEL_LINES)
        return [*((name, True) for name in names), *((line, False) for line in (row.note, score) if line)]

    def _wrapped(self, text: str, width: int, most: int) -> list[str]:
        return wrapped(text, self.bold, width - round(self.bold.getlength(" …")), most)
