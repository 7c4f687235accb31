"""The report's page in a browser: what a person can do with it, with the mouse, the keyboard and on paper."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from rich.console import Console

from bench.report import contests
from bench.report.report import write_report
from tests.report import fake
from tests.report.browser import opened, started
from tests.report.test_filmstrips import strip

pytestmark = pytest.mark.slow
METHODS = ["vader", "rlr", "zo", "random-direction"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started() as found:
        yield found


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of pictures, of which vader's collapse, and a page of clips."""
    root = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contests, "all_figures", lambda contest: [])  # files beside the page, slow to draw
        patch.setitem(fake.FIGHTS, "vader", replace(fake.FIGHTS["vader"], diversity=-0.3))
        fake.write(root / "pictures", METHODS, seeds=(0, 1), steps=30)
        fake.write(root / "clips", ["vader"], steps=10)
        for file in root.glob("clips/cells/*/samples/*/*.png"):
            strip(file, row=1)
        return {
            name: write_report(root / name, Console(file=io.StringIO())) for name in ("pictures", "clips")
        }


@pytest.fixture
def page(browser: Browser, paths: dict[str, Path]) -> Iterator[Page]:
    with opened(browser, paths["pictures"]) as found:
        yield found


def column(table: Locator, number: int) -> list[str]:
    """The texts of a column, from the top down."""
    return table.locator(f"tbody tr td:nth-child({number})").all_inner_texts()


def lines(page: Page, label: str) -> int:
    """How many lines of charts of several methods have a method's colour."""
    code = """label => {
        const look = figures[0].section.data.methods.find(m => m.label === label).colour;
        const charts = "figure:not([data-kind=norms]) .plot";
        return document.querySelectorAll(`${charts} [aria-label=line][stroke="${look}"]`).length;
    }"""
    return int(page.evaluate(code, label))


@pytest.mark.parametrize("name", ["pictures", "clips"])
@pytest.mark.parametrize("width", [1440, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_a_network_and_fits_the_window(
    browser: Browser, paths: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    with opened(browser, paths[name], width, color_scheme=scheme) as page:
        expect(page.locator("figure.chart:not(:has(.plot > svg))")).to_have_count(0)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("figures.length") >= 10
        sizes = page.evaluate(
            "[...document.querySelectorAll('.plot svg')].map(svg => svg.getScreenCTM().a * 12)"
        )
        assert min(sizes) == 12  # pixels of the letters: no chart is drawn for a wider window
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_tables_are_sorted_by_value_and_all_of_a_contest_together(page: Page) -> None:
    reached, _, cost = page.locator("table.summary").all()
    methods = column(reached, 1)
    assert methods[0] == "base"
    header = cost.get_by_role("columnheader", name="train s")
    header.get_by_role("button").click()
    seconds = column(cost, 1 + page.evaluate("th => th.cellIndex", header.element_handle()))
    assert seconds[-1] == "–" and seconds[:-1] == sorted(seconds[:-1], key=float, reverse=True)
    assert header.get_attribute("aria-sort") == "descending"
    assert column(reached, 1) == column(cost, 1) != methods
    header.get_by_role("button").press("Enter")
    assert header.get_attribute("aria-sort") == "ascending" and column(cost, 1)[-1] == "base"
    other = reached.get_by_role("columnheader", name="method")
    other.get_by_role("button").click()
    assert column(cost, 1) == sorted(methods)
    assert (header.get_attribute("aria-sort"), other.get_attribute("aria-sort")) == ("none", "ascending")
    for _ in range(2):
        other.get_by_role("button").press("Space")
    assert column(reached, 1) == methods and other.get_attribute("aria-sort") == "none"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("+0.0510 ± 0.0110", 0.051),
        ("-0.0178 … +0.1198", -0.0178),
        ("−3", -3),
        ("2.9k", 2900),
        ("3.4M", 3.4e6),
        ("12,800", 12800),
        ("<0.001", 0.001),
        ("1e-05", 1e-5),
        ("77%", 77),
        ("2 of 3 runs, from 40", 2),
        ("fo 99%", None),
        ("3d", None),
    ],
)
def test_a_cell_counts_as_the_number_that_it_begins_with(page: Page, text: str, value: float | None) -> None:
    assert page.evaluate("numberIn", text) == value


def test_a_method_is_taken_out_of_all_charts_and_pictures_and_comes_back(page: Page) -> None:
    before = lines(page, "rlr")
    assert before >= 5
    box = page.get_by_role("checkbox", name="rlr")
    box.press("Space")
    assert not box.is_checked() and lines(page, "rlr") == 0 and lines(page, "vader") == before
    assert page.locator("figure[data-method=rlr] img:visible").count() == 0
    page.locator(".methods button[value=none]").click()
    assert [lines(page, label) for label in METHODS] == [0] * len(METHODS)
    page.locator(".methods button[value=all]").press("Enter")
    assert box.is_checked() and lines(page, "rlr") == before
    assert page.locator("figure[data-method=rlr] img:visible").count() == 4


def test_the_axis_is_switched_in_all_curves(page: Page) -> None:
    chart = page.locator("figure[data-kind=curve]")
    assert chart.get_by_text("optimizer steps →").count() == chart.count() == 5
    page.get_by_role("radio", name="optimizer steps").press("ArrowRight")
    assert page.get_by_role("radio", name="training seconds").is_checked()
    assert chart.get_by_text("training seconds →").count() == 5
    assert page.locator("figure[data-n=cost]").get_by_text("training seconds →").count() == 1
    page.get_by_role("radio", name="forward equivalents").check()
    assert chart.get_by_text("forward equivalents →").count() == 5


def test_where_pictures_collapse_is_marked(page: Page) -> None:
    assert "collapse" in page.locator("p", has_text="✕").inner_text()
    crosses = page.locator("figure[data-kind=curve] [aria-label=dot][stroke-width='2.5']")
    assert crosses.count() == 5
    page.get_by_role("checkbox", name="vader").uncheck()
    assert crosses.count() == 0


def test_a_chart_says_the_numbers_under_the_pointer(page: Page) -> None:
    figure = page.locator("figure[data-kind=curve]").first
    dot = figure.locator("[aria-label=dot] path").last
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    expect(figure.locator("[aria-label=tip]")).to_contain_text("optimizer steps: 30")
    expect(figure.locator("[aria-label=tip]")).to_contain_text("±")


def test_the_slider_goes_from_before_to_after(page: Page) -> None:
    compare = page.locator(".compare")
    prompt, method = compare.get_by_role("combobox").all()
    assert prompt.locator("option").all_inner_texts() == fake.PROMPTS[:8]
    prompt.select_option("2")
    method.select_option("rlr")
    tiles = page.locator(".prompt").nth(2).locator("figure")
    rlr = tiles.filter(has=page.locator(".label", has_text="rlr"))
    before, after = compare.locator("img").all()
    assert before.get_attribute("src") == tiles.first.locator("img").get_attribute("src")
    assert after.get_attribute("src") == rlr.locator("img").get_attribute("src")
    assert compare.locator(".scores").inner_text().split()[::2] == ["base", "rlr"]
    slider = compare.get_by_role("slider")
    slider.press("ArrowRight")
    assert compare.locator(".pair").evaluate("pair => pair.style.getPropertyValue('--cut')") == "51%"
    slider.press("Home")
    assert "inset(0px 0px 0px 0%)" in after.locator("..").evaluate("shot => getComputedStyle(shot).clipPath")
    page.locator(".prompt").nth(1).get_by_role("button").nth(2).click()
    assert prompt.input_value() == "1" and slider.evaluate("slider => slider === document.activeElement")


def test_clips_play_and_are_shown_frame_by_frame(browser: Browser, paths: dict[str, Path]) -> None:
    with opened(browser, paths["clips"], 400) as page:
        player = page.locator(".player")
        frame = player.get_by_role("slider")
        assert player.locator("output").inner_text() == "1 of 8"
        player.get_by_role("button", name="Play").press("Enter")
        expect(player.locator("output")).not_to_have_text("1 of 8")
        player.get_by_role("button", name="Pause").click()
        frame.press("End")
        assert player.locator("output").inner_text() == "8 of 8"
        shot, image = (page.locator(f".shots {what}").first.bounding_box() for what in (".shot", "img"))
        assert shot and image and image["width"] == pytest.approx(8 * shot["width"], abs=0.5)
        assert image["x"] == pytest.approx(shot["x"] - 7 * shot["width"], abs=0.5)
        player.get_by_role("checkbox").check()
        shot, image = (page.locator(f".shots {what}").first.bounding_box() for what in (".shot", "img"))
        assert shot and image and image["width"] == pytest.approx(shot["width"], abs=0.5)


def test_the_button_turns_dark_to_light_and_back(page: Page) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    button = page.locator("#theme")
    button.press("Enter")
    assert page.evaluate(colour) != light and button.inner_text() == "Light"
    button.click()
    assert page.evaluate(colour) == light and button.inner_text() == "Dark"


def test_print_shows_everything_but_the_controls(page: Page) -> None:
    page.get_by_role("checkbox", name="rlr").uncheck()
    hidden = page.locator("details").count()
    page.emulate_media(media="print")
    expect(page.locator("details[open]")).to_have_count(hidden)
    controls = "button:visible:not(.shots button):not(th button), select:visible, input:visible"
    assert page.locator(controls).count() == 0
    assert page.locator(".methods label:visible").count() == len(METHODS)  # the legend
    assert lines(page, "rlr") == lines(page, "vader") > 0
    assert page.locator("figure[data-method=rlr] img:visible").count() == 8
    page.emulate_media(media="screen")
    expect(page.locator("details[open]")).to_have_count(0)
    assert lines(page, "rlr") == 0


def test_without_scripts_tables_and_pictures_are_there_and_the_rest_is_named(
    browser: Browser, paths: dict[str, Path]
) -> None:
    for name, pictures in (("pictures", 4 * 5), ("clips", 4 * 2)):
        with opened(browser, paths[name], java_script_enabled=False) as page:
            assert page.get_by_text("JavaScript is off").is_visible()
            assert page.locator("table.summary").first.is_visible()
            assert page.locator(".shots img:visible").count() == pictures
            assert page.locator(".controls:visible, .compare:visible, figure.chart:visible").count() == 0
