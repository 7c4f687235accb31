"""Figures of profiles are drawn from rows and points alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.measure.cost import figures
from bench.measure.cost.figures import Setting
from bench.measure.cost.ledger import COMPONENTS, SIZE, Point, nothing


def test_every_component_belongs_to_one_entry_of_the_legend_and_nothing_is_lost() -> None:
    sizes = {name: 10**9 * (n + 1) for n, name in enumerate(COMPONENTS)}
    assert sum(figures.grouped(sizes).values()) == sum(range(1, SIZE + 1))
    assert {figures.group(name) for name in COMPONENTS} == set(figures.GROUPS)


@pytest.mark.slow
def test_only_figures_that_the_rows_allow_are_drawn(tmp_path: Path) -> None:
    parts = {"weights network": 2 * 10**9, "activations network": 10**9}
    rows = [Setting("rlr", "staged", 50, 2, 3 * 10**9, 1e12, components=parts)]
    assert {p.stem for p in figures.draw(tmp_path, rows, {})} == {"memory_components"}
    rows += [
        Setting("rlr", "staged", 50, 3, 3 * 10**9, 2e12),
        Setting("rlr", "staged", 25, 2, 3 * 10**9, 1e12),
    ]
    points = [Point(n, "rollout" if n < 5 else "reward", nothing() + n * 1e8) for n in range(9)]
    drawn = {p.name for p in figures.draw(tmp_path, rows, {"rlr": points})}
    stems = ("memory_components", "memory_steps", "cost_h", "timeline_rlr")
    assert drawn == {f"{stem}.{kind}" for stem in stems for kind in ("svg", "png")}
