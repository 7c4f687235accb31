"""Before and after: the untuned model's pictures in the first row, a row per method, a column per prompt.

Videos are shown as filmstrips instead: bench.report.filmstrips.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw

from bench.base.filmstrip import frames_in
from bench.report.filmstrips import film_sheets
from bench.report.groups import Contest, Group
from bench.report.load import CellResults
from bench.report.sheet import INK, PALE, PAPER, RULE, GridRow, Sheet, encoded, font, score_text, wrapped

TILE, GAP, MARGIN, LABEL = 192, 12, 16, 240  # pixels
TEXT, SMALL, TITLE_LINES = 22, 20, 4


class Grid(NamedTuple):
    """What is shown before and after: a row per method, the numbers of the prompts, and the prompts."""

    rows: list[GridRow]
    columns: list[int]
    prompts: list[str]


def grid_of(contest: Contest) -> Grid:
    """The pictures of the first of several seeds; no rows without pictures."""
    members = [*([contest.base] if contest.base else []), *contest.ranked()]
    prompts = next((p for g in members for c in g.cells if (p := prompts_in_order(c))), [])
    rows = [_row(contest, group, prompts) for group in members if group.cells]
    rows = [row for row in rows if row.pictures]
    return Grid(rows, sorted({n for row in rows for n in row.pictures}), prompts)


def picture_sheets(grid: Grid) -> list[Sheet]:
    """A sheet of pictures, or sheets of filmstrips; none without pictures."""
    rows, columns, prompts = grid
    if not rows:
        return []
    if _are_clips(rows):
        return film_sheets(rows, columns, prompts)
    return [Sheet(_paint(rows, columns, prompts), len(columns))]


def _are_clips(rows: list[GridRow]) -> bool:
    with Image.open(next(iter(rows[0].pictures.values()))) as stored:
        return frames_in(stored) > 1


def prompts_in_order(cell: CellResults) -> list[str]:
    """Held-out prompts in the order in which they were evaluated: samples/<step>/<n>.png shows the n-th."""
    named = cell.evals["prompt"].dropna()
    return [str(p) for p in named.drop_duplicates()]


def _row(contest: Contest, group: Group, prompts: list[str]) -> GridRow:
    cell = group.cells[0]
    step, pictures = cell.pictures.step, cell.pictures.files
    lines = cell.scored(contest.reward, step)
    first = {
        p: float(s) for p, i, s in zip(lines["prompt"], lines["image"], lines["score"], strict=True) if i == 0
    }
    scores = {n: first[prompts[n]] for n in pictures if n < len(prompts) and prompts[n] in first}
    note = f"after {step} steps" if step else "before"
    return GridRow(group.label, note, pictures, scores)


def _paint(rows: list[GridRow], columns: list[int], prompts: list[str]) -> bytes:
    text, small, bold = font("DejaVuSans", TEXT), font("DejaVuSans", SMALL), font("DejaVuSans-Bold", TEXT)
    titles = [
        wrapped(prompts[n] if n < len(prompts) else f"prompt {n}", small, TILE, TITLE_LINES) for n in columns
    ]
    head = MARGIN + max(map(len, titles)) * (SMALL + 5) + GAP
    pitch = TILE + SMALL + 2 * GAP
    size = (2 * MARGIN + LABEL + len(columns) * (TILE + GAP) - GAP, head + len(rows) * pitch + MARGIN // 2)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for c, lines in enumerate(titles):
        top = head - GAP - len(lines) * (SMALL + 5)
        for k, line in enumerate(lines):
            draw.text((_left(c), top + k * (SMALL + 5)), line, INK, small)
    for r, row in enumerate(rows):
        top = head + r * pitch
        labels = wrapped(row.label, bold, LABEL - GAP, TITLE_LINES)
        middle = top + TILE // 2 - len(labels) * (TEXT + 6) // 2
        for k, line in enumerate([*labels, row.note]):
            pale = k == len(labels)
            draw.text((MARGIN, middle + k * (TEXT + 6)), line, PALE if pale else INK, text if pale else bold)
        for c, n in enumerate(columns):
            if n in row.pictures:
                sheet.paste(_tile(row.pictures[n]), (_left(c), top))
                draw.rectangle((_left(c), top, _left(c) + TILE - 1, top + TILE - 1), outline=RULE)
            if n in row.scores and math.isfinite(row.scores[n]):
                place = (_left(c) + TILE // 2, top + TILE + 4)
                draw.text(place, score_text(row.scores[n]), PALE, small, anchor="ma")
        if r == 0 and len(rows) > 1:
            line = top + pitch - GAP // 2 - 1
            draw.line((MARGIN, line, size[0] - MARGIN, line), RULE, 2)
    return encoded(sheet)


def _left(column: int) -> int:
    return MARGIN + LABEL + column * (TILE + GAP)


def _tile(path: Path) -> Image.Image:
    """The picture, resampled so that its longer side is a tile's."""
    with Image.open(path) as picture:
        scale = TILE / max(picture.size)
        size = (round(picture.width * scale), round(picture.height * scale))
        return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
