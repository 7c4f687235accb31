"""Figures and picture grid."""

import io
from pathlib import Path

import pytest
from matplotlib import rcParams
from PIL import Image

from bench.base import style
from bench.report import grid
from bench.report.curves import held_out
from bench.report.groups import Contest, contests
from bench.report.load import load
from tests.report import fake


@pytest.fixture
def contest(results: Path) -> Contest:
    return contests(load(results))[0]


@pytest.mark.slow
def test_curves_begin_at_the_base_model_and_end_at_the_table(contest: Contest) -> None:
    vader = contest.ranked()[0]
    points = held_out(contest, vader)
    assert list(points["steps"]) == [0, 10, 20, 30, 40, 50, 60]
    assert contest.base and points["mean"].iloc[0] == contest.score(contest.base, "clip").mean
    assert points["mean"].iloc[-1] == contest.score(vader, "clip").mean
    assert points["se"].iloc[-1] == contest.gain(vader, "clip").se
    fight = fake.FIGHTS["vader"]
    assert points["seconds"].iloc[-1] == pytest.approx(60 * fight.seconds)
    assert points["forward_equivalents"].iloc[-1] == 60 * (fight.forward + 2 * fight.backward)


def test_methods_keep_their_look_whoever_else_takes_part() -> None:
    alone = style.looks({"rlr": "rlr"})
    everyone = style.looks({name: name for name in [*style.own_looks(), "mine", "yours"]})
    assert alone["rlr"] == everyone["rlr"]
    assert len(set(map(str, everyone.values()))) == len(everyone)


def test_variants_of_a_method_look_different() -> None:
    found = style.looks({"rlr (h=1)": "rlr", "rlr (h=3)": "rlr", "other": "other"})
    assert len(set(map(str, found.values()))) == 3


def test_drawing_leaves_matplotlibs_settings_alone() -> None:
    before = dict(rcParams)
    with style.drawing():
        assert rcParams["axes.spines.top"] is False
    assert dict(rcParams) == before


@pytest.mark.slow
def test_a_figure_has_the_same_bytes_each_time() -> None:
    def draw() -> dict[str, bytes]:
        with style.drawing():
            figure = style.new_figure(2, 1)
            figure.subplots().plot([0, 1], [1, 0])
            return style.render(figure)

    assert draw() == draw()


@pytest.mark.slow
def test_the_grid_has_a_row_per_method_and_a_column_per_prompt(contest: Contest) -> None:
    (sheet,) = grid.picture_sheets(grid.grid_of(contest))
    assert sheet.prompts == 8
    image = Image.open(io.BytesIO(sheet.png))
    rows = 4  # base, vader, ddpo, rlr; zo failed
    assert image.width == 2 * grid.MARGIN + grid.LABEL + 8 * (grid.TILE + grid.GAP) - grid.GAP
    assert rows * grid.TILE < image.height < (rows + 1.2) * grid.TILE + 120


def test_scores_under_the_pictures_belong_to_their_prompts(contest: Contest) -> None:
    assert contest.base
    prompts = grid.prompts_in_order(contest.base.cells[0])
    assert prompts == fake.PROMPTS
    row = grid._row(contest, contest.base, prompts)
    scores = contest.base.scores("clip")[0]
    assert [row.scores[n] for n in range(8)] == [scores[(prompts[n], 0)] for n in range(8)]


@pytest.mark.parametrize(("size", "shown"), [((64, 64), (192, 192)), ((512, 256), (192, 96))])
def test_pictures_fill_their_tile_and_keep_their_shape(
    tmp_path: Path, size: tuple[int, int], shown: tuple[int, int]
) -> None:
    Image.new("RGB", size, "red").save(tmp_path / "0.png")
    assert grid._tile(tmp_path / "0.png").size == shown


def test_no_pictures_make_no_grid(tmp_path: Path) -> None:
    root = fake.write(tmp_path / "r", ["rlr"], pictures=False)
    assert grid.picture_sheets(grid.grid_of(contests(load(root))[0])) == []
