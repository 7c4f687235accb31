"""The figures of gradient profiles."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from bench.base import style
from bench.measure.gradients.profiles import rows
from bench.measure.gradients.table import curves, frame, parts
from bench.report import gradient_figures as figures
from bench.report.gradient_figures import Dot, dots, gradient_figures, plane
from bench.report.label_placement import Point, place_names
from tests.report import fake_gradients
from tests.report.fake_gradients import Fake

pytestmark = pytest.mark.slow

NAMES = {"gradients_plane", "gradients_steps", "gradients_cosine"}


def dot(name: str, bias: float, variance: float, seconds: float = 1.0, high: float = 2.0) -> Dot:
    """One that is decided and declared biased."""
    return Dot(name, bias, bias / 2, high, variance, seconds, 100.0, True, False)


def test_every_figure_is_drawn_in_both_formats(tmp_path: Path) -> None:
    table = rows(fake_gradients.write(tmp_path))
    found = gradient_figures(frame(table), parts(table, by_step=True), curves(table))
    assert {f.name for f in found} == NAMES
    for figure in found:
        assert figure.png.startswith(b"\x89PNG") and figure.svg.count(b"<path") > 10


def test_profiles_of_which_nothing_is_known_make_no_figure(tmp_path: Path) -> None:
    table = rows(fake_gradients.write(tmp_path, draws=2))
    assert gradient_figures(frame(table), parts(table, by_step=True), curves(table)) == []


def test_what_is_not_known_yet_is_named_in_the_caption(tmp_path: Path) -> None:
    fakes = {"full_bp": fake_gradients.FAKES["full_bp"]}
    fake_gradients.write(tmp_path, fakes)
    fake_gradients.write(tmp_path, {"zo": Fake()}, draws=2)
    table = rows(tmp_path)
    found = gradient_figures(frame(table), parts(table, by_step=True), curves(table))
    shown = {f.name: f.caption for f in found}
    assert "zo" in shown["gradients_plane"] and "zo" in shown["gradients_cosine"]


def test_the_slowest_is_drawn_first_and_hides_nothing(tmp_path: Path) -> None:
    table = rows(fake_gradients.write(tmp_path))
    summary = frame(table)
    found = dots(summary, {name: name for name in summary["method"]})
    assert [d.name for d in found] == ["full_bp", "rlr", "truncated_bp"]
    assert [d.biased for d in found] == [False, False, True]


def test_areas_of_markers_are_proportional_to_seconds() -> None:
    with style.drawing():
        figure = plane([dot("a", 0.5, 1.0, seconds=8.0), dot("b", 0.1, 2.0, seconds=2.0)])
    big, small = (float(c.get_sizes()[0]) for c in figure.axes[0].collections[:2])  # type: ignore[attr-defined]
    assert big / small == pytest.approx(4.0)


@pytest.mark.parametrize("high", [0.9, float("inf")])
def test_a_bias_of_zero_and_an_endless_interval_have_a_place(high: float) -> None:
    with style.drawing():
        figure = plane([dot("none", 0.0, 1e-4, high=0.0), dot("some", 0.5, 1e6, high=high)])
        axes = figure.axes[0]
        inside = axes.transAxes.inverted().transform(axes.transData.transform([(0.0, 1e-4), (0.5, 1e6)]))
    assert ((inside > 0) & (inside < 1)).all()
    assert np.isfinite(axes.get_xlim()).all()


def boxes(figure: Figure, names: list[Annotation]) -> list[tuple[float, ...]]:
    """Pixels that names cover, a little less at the borders."""
    figure.draw_without_rendering()
    return [tuple(name.get_window_extent().padded(-1).extents) for name in names]


@pytest.mark.parametrize("count", [2, 8, 25])
def test_names_do_not_overlap_even_where_points_crowd(count: int) -> None:
    rng = np.random.default_rng(count)
    crowd = rng.normal(0.5, 0.02, (count, 2))
    with style.drawing():
        figure = style.new_figure(9.0, 5.6)
        axes = figure.subplots()
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        points = [Point(f"method-number-{n}", x, y, 4.0, "k") for n, (x, y) in enumerate(crowd)]
        found = boxes(figure, place_names(figure, axes, points, 7.0))
    for n, (x0, y0, x1, y1) in enumerate(found):
        for a0, b0, a1, b1 in found[:n]:
            assert min(x1, a1) <= max(x0, a0) or min(y1, b1) <= max(y0, b0)


def test_curves_of_undecided_methods_end_where_measuring_ended(tmp_path: Path) -> None:
    table = rows(fake_gradients.write(tmp_path))
    lines = figures.curves(frame(table), curves(table), {row.label: row.label for row in table})
    assert max(lines["rlr"]["samples"].tolist()) <= 96 * 8
    assert max(lines["truncated_bp"]["samples"].tolist()) == 2**20
    assert lines["full_bp"]["cosine_deployed"].iloc[-1] == pytest.approx(1.0, abs=1e-3)
