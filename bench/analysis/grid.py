"""Before and after: the untuned model's pictures in the first row, a row per method, a column per prompt."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from bench.analysis.groups import Contest, Group
from bench.analysis.load import Cell
from bench.strips import frames_in

TILE, GAP, MARGIN, LABEL = 192, 12, 16, 240  # pixels
TEXT, SMALL, TITLE_LINES = 22, 20, 4
INK, PALE, PAPER, RULE = "#1A1A1A", "#6E6E6E", "#FFFFFF", "#D8D8D8"


@dataclass(frozen=True)
class GridRow:
    """A method's pictures by column and their scores (nan: not scored)."""

    label: str
    note: str
    pictures: dict[int, Path]
    scores: dict[int, float]


def picture_grid(contest: Contest) -> bytes | None:
    """The grid as png; None if no cell kept pictures. Of several seeds the first one's pictures are shown."""
    members = [*([contest.base] if contest.base else []), *contest.ranked()]
    prompts = next((p for g in members for c in g.cells if (p := prompts_in_order(c))), [])
    rows = [_row(contest, group, prompts) for group in members if group.cells]
    rows = [row for row in rows if row.pictures]
    columns = sorted({n for row in rows for n in row.pictures})
    return _paint(rows, columns, prompts) if rows else None


def prompts_in_order(cell: Cell) -> list[str]:
    """Held-out prompts in the order in which they were evaluated: samples/<step>/<n>.png shows the n-th."""
    named = cell.evals["prompt"].dropna()
    return [str(p) for p in named.drop_duplicates()]


def _row(contest: Contest, group: Group, prompts: list[str]) -> GridRow:
    cell = group.cells[0]
    step, pictures = latest_pictures(cell.path / "samples")
    lines = cell.scored(contest.reward, step)
    first = {
        p: float(s) for p, i, s in zip(lines["prompt"], lines["image"], lines["score"], strict=True) if i == 0
    }
    scores = {n: first[prompts[n]] for n in pictures if n < len(prompts) and prompts[n] in first}
    note = f"after {step} steps" if step else "before"
    return GridRow(group.label, note, pictures, scores)


def latest_pictures(samples: Path) -> tuple[int, dict[int, Path]]:
    """The last evaluation's step and its pictures by their number; 0 and nothing if none were kept."""
    steps = {int(p.name): p for p in samples.iterdir() if p.name.isdigit()} if samples.is_dir() else {}
    for step in sorted(steps, reverse=True):
        found = {int(p.stem): p for p in sorted(steps[step].glob("*.png")) if p.stem.isdigit()}
        if found:
            return step, found
    return 0, {}


def _paint(rows: list[GridRow], columns: list[int], prompts: list[str]) -> bytes:
    text, small, bold = _font("DejaVuSans", TEXT), _font("DejaVuSans", SMALL), _font("DejaVuSans-Bold", TEXT)
    titles = [_wrapped(prompts[n] if n < len(prompts) else f"prompt {n}", small, TILE) for n in columns]
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
        labels = _wrapped(row.label, bold, LABEL - GAP)
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
                draw.text(place, _score(row.scores[n]), PALE, small, anchor="ma")
        if r == 0 and len(rows) > 1:
            line = top + pitch - GAP // 2 - 1
            draw.line((MARGIN, line, size[0] - MARGIN, line), RULE, 2)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()


def _score(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _left(column: int) -> int:
    return MARGIN + LABEL + column * (TILE + GAP)


def _tile(path: Path) -> Image.Image:
    """The picture, resampled so that its longer side is a tile's; a filmstrip folded into rows first."""
    with Image.open(path) as stored:
        picture = _folded(stored, frames_in(stored))
        scale = TILE / max(picture.size)
        size = (round(picture.width * scale), round(picture.height * scale))
        return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _folded(strip: Image.Image, frames: int) -> Image.Image:
    """A filmstrip's frames in rows, in reading order, as large as they can be in a square."""
    if frames == 1:
        return strip
    width, height = strip.width // frames, strip.height
    columns = min(range(1, frames + 1), key=lambda n: max(n * width, math.ceil(frames / n) * height))
    rows = math.ceil(frames / columns)
    sheet = Image.new("RGB", (columns * width, rows * height), PAPER)
    for n in range(frames):
        frame = strip.crop((n * width, 0, (n + 1) * width, height))
        sheet.paste(frame, (n % columns * width, n // columns * height))
    return sheet


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font that travels with matplotlib, so the picture is the same everywhere."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines no wider than `width` pixels where words allow; an ellipsis after the last line that fits."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > TITLE_LINES:
        lines = [*lines[: TITLE_LINES - 1], lines[TITLE_LINES - 1] + " …"]
    return lines
