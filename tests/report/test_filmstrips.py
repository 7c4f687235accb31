"""Filmstrips of videos before and after."""

import io
import re
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rich.console import Console

from bench.base.filmstrip import FRAMES
from bench.report import filmstrips
from bench.report.filmstrips import FRAME, GAP, LABEL, MARGIN, TEXT, chosen, clip_of
from bench.report.report import write_report
from bench.report.sheet import GridRow
from tests.report import fake

LABELS = ("base", "rlr (h=1)", "vader")


def strip(path: Path, row: int, count: int = 8, size: tuple[int, int] = (64, 64)) -> Path:
    """A made-up clip whose n-th frame is of the colour (30 n, 100 row, 50)."""
    width, height = size
    sheet = Image.new("RGB", (count * width, height))
    for n in range(count):
        sheet.paste((30 * n % 256, 100 * row, 50), (n * width, 0, (n + 1) * width, height))
    text = PngInfo()
    text.add_text(FRAMES, str(count))
    sheet.save(path, pnginfo=text)
    return path


@pytest.fixture
def rows(tmp_path: Path) -> list[GridRow]:
    """Three rows of two prompts; the last row has no clip of the second prompt."""
    found = []
    for k, label in enumerate(LABELS):
        clips = {n: strip(tmp_path / f"{k}-{n}.png", k) for n in (0, 1) if (k, n) != (2, 1)}
        found.append(GridRow(label, "after 3 steps" if k else "before", clips, dict.fromkeys(clips, 0.5)))
    return found


@pytest.mark.parametrize(
    ("count", "most", "numbers"),
    [
        (3, 8, [0, 1, 2]),
        (8, 8, list(range(8))),
        (8, 4, [0, 2, 5, 7]),
        (16, 8, [0, 2, 4, 6, 9, 11, 13, 15]),
    ],
)
def test_frames_are_shown_in_order_from_the_first_to_the_last(
    count: int, most: int, numbers: list[int]
) -> None:
    assert chosen(count, most) == numbers


@pytest.mark.parametrize(("size", "shown"), [((64, 64), (160, 160)), ((512, 320), (160, 100))])
def test_frames_keep_their_shape_and_order(
    tmp_path: Path, size: tuple[int, int], shown: tuple[int, int]
) -> None:
    clip = clip_of(strip(tmp_path / "0.png", 1, size=size), most=4)
    assert [frame.size for frame in clip.frames] == [shown] * 4
    assert [frame.getpixel((80, 50)) for frame in clip.frames] == [(30 * n, 100, 50) for n in clip.numbers]


def test_strips_of_a_prompt_stand_frame_under_frame_in_the_rows_order(rows: list[GridRow]) -> None:
    (sheet,) = filmstrips.film_sheets(rows, [0], ["a fox"])
    image = Image.open(io.BytesIO(sheet.png)).convert("RGB")
    assert image.width == 2 * MARGIN + LABEL + 8 * (FRAME + GAP) - GAP
    first = (
        MARGIN + 2 * (TEXT + filmstrips.LINE_GAP) + GAP + FRAME // 2
    )  # a line of the prompt, one of numbers
    left = MARGIN + LABEL + FRAME // 2
    shown = [
        [image.getpixel((left + n * (FRAME + GAP), first + r * (FRAME + GAP))) for n in range(8)]
        for r in range(3)
    ]
    assert shown == [[(30 * n, 100 * r, 50) for n in range(8)] for r in range(3)]


@pytest.mark.slow
def test_a_row_without_a_clip_of_a_prompt_leaves_no_gap_there(rows: list[GridRow]) -> None:
    heights = []
    for column in (0, 1):
        (sheet,) = filmstrips.film_sheets(rows, [column], ["a fox", "a snail"])
        heights.append(Image.open(io.BytesIO(sheet.png)).height)
    assert heights[0] - heights[1] == FRAME + GAP


def test_long_labels_and_prompts_do_not_run_into_the_frames(rows: list[GridRow]) -> None:
    long = [GridRow("vader with every setting " * 9, r.note, r.pictures, r.scores) for r in rows]
    painter = filmstrips._Painter(long, [0])
    image = painter.paint(["a fox and a snail on a green background " * 9])
    right = image.crop((painter.right + 1, 0, image.width, image.height))
    assert set(right.tobytes()) == {255}
    assert all(painter.bold.getlength(line) < LABEL for line, _ in painter._beside(long[0], "0.500"))


@pytest.mark.slow
def test_the_page_shows_a_few_prompts_and_unfolds_the_others(tmp_path: Path) -> None:
    root = fake.write(tmp_path / "r", ["vader"])
    for file in root.glob("cells/*/samples/*/*.png"):
        strip(file, row=1)
    page = write_report(root, Console(file=io.StringIO(), width=80)).read_text()
    drawn = sorted(path.name for path in (root / "report").glob("grid*"))
    assert drawn == ["grid.png", "grid_2.png"]
    assert "4 more prompts" in page and "frames in time order" in page
    assert len(re.findall(r"--frames: 8", page)) == 2 * 8  # of the base model and vader, for every prompt
    assert page.index("--frames: 8") < page.index("4 more prompts") < page.rindex("--frames: 8")


@pytest.mark.slow
def test_a_page_of_pictures_has_no_filmstrips(report: tuple[Path, str]) -> None:
    page = report[0].read_text()
    assert 'class="controls player' not in page and "--frames: 1;" in page and "--frames: 8" not in page
    assert sorted(path.name for path in report[0].parent.glob("grid*")) == ["grid.png"]
