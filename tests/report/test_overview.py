"""Contests side by side: one column per trained reward, one line per place and method."""

from pathlib import Path

import pytest
import yaml

from bench.report.groups import contests
from bench.report.load import load
from bench.report.overview import overview
from bench.report.section import TableSection
from bench.report.summary import lines
from tests.report import fake


def at_a_glance(root: Path) -> TableSection | None:
    return overview([(contest, lines(contest)) for contest in contests(load(root))])


def copied(root: Path, out: Path, **changes: object) -> None:
    """The cells of another results directory beside these, with another setting of their model."""
    for path in fake.write(out, ("rlr", "ddpo"), pictures=False).glob("cells/*"):
        config = yaml.safe_load((path / "config.yaml").read_text())
        config["model"]["config"] |= changes
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        path.rename(root / "cells" / f"{path.name}-again")


def test_one_contest_needs_no_overview(tmp_path: Path) -> None:
    assert at_a_glance(fake.write(tmp_path / "a", ("rlr",), pictures=False)) is None


@pytest.mark.slow
def test_places_are_told_apart_by_what_differs_and_begin_with_their_base(tmp_path: Path) -> None:
    root = fake.write(tmp_path / "a", ("rlr", "ddpo"), pictures=False)
    copied(root, tmp_path / "b", steps=50)
    found = at_a_glance(root)
    assert found is not None
    assert [c.header for c in found.columns] == ["clip"]
    assert found.names.cells == (
        *(f"tiny (steps=20), {method}" for method in ("base", "ddpo", "rlr")),
        *(f"tiny (steps=50), {method}" for method in ("base", "ddpo", "rlr")),
    )
    assert found.muted == (True, False, False) * 2
    titles = [contest.title for contest in contests(load(root))]
    assert titles == ["tiny, trained on clip (steps=20)", "tiny, trained on clip (steps=50)"]


@pytest.mark.slow
def test_every_score_is_the_one_of_its_contest(tmp_path: Path) -> None:
    root = fake.write(tmp_path / "a", ("rlr", "ddpo"), pictures=False)
    copied(root, tmp_path / "b", steps=50)
    found = at_a_glance(root)
    assert found is not None
    for contest in contests(load(root)):
        for row in lines(contest):
            (line,) = [
                line for line in found.lines if line[0].endswith(f"{row.group.label}")
                and f"steps={contest.setting['model']['steps']}" in line[0]
            ]  # fmt: skip
            assert float(line[1].split()[0]) == float(f"{row.score.mean:.{len(line[1].split()[0]) - 2}f}")


@pytest.mark.slow
def test_contests_with_and_without_dcot_are_told_apart_in_few_words(tmp_path: Path) -> None:
    root = fake.write(tmp_path / "a", ("rlr", "ddpo"), pictures=False)
    thirds = {
        "boundaries": [1 / 3, 2 / 3],
        "file": None,
        "endpoint": None,
        "llm": None,
        "key_variable": "KEY",
    }
    for name, boundaries in (("b", thirds["boundaries"]), ("c", [0.2, 0.6])):
        for path in fake.write(tmp_path / name, ("rlr", "ddpo"), pictures=False).glob("cells/*"):
            config = yaml.safe_load((path / "config.yaml").read_text())
            config["dcot"] = {**thirds, "boundaries": boundaries}
            (path / "config.yaml").write_text(yaml.safe_dump(config))
            path.rename(root / "cells" / f"{path.name}-{name}")
    found = contests(load(root))
    assert [contest.title for contest in found] == [
        f"tiny, trained on clip (dcot={how})" for how in ("0.2 and 0.6", "off", "on")
    ]
    assert all(len(contest.groups) == 2 and contest.base is not None for contest in found)
