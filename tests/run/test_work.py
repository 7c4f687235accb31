from pathlib import Path

import pytest

from bench.base.errors import BenchError
from bench.data.prompts.public import vbench_dimensions
from bench.measure.vbench.dimensions import DIMENSIONS
from bench.measure.vbench.jobs import VbenchJob
from bench.run.store import CellDir
from bench.run.work import KINDS, CellWork, kind_of, work_in
from tests.measure.vbench.requests import planned, score_request, videos_request
from tests.support.running import plan_dots


def test_a_cells_work_is_found_again(tmp_path: Path, plugin: None) -> None:
    cell, _ = plan_dots(tmp_path)
    found = work_in(CellDir(cell.directory.path))
    assert isinstance(found, CellWork)
    assert (found.config, found.total, found.title) == (cell.config, cell.total, cell.id)


def test_vbenchs_work_is_found_again(tmp_path: Path) -> None:
    parts = [videos_request(tmp_path / "videos"), score_request(tmp_path / "videos")]
    assert [part.work for part in parts] == list(KINDS)
    for part, total in zip(parts, (5, 1), strict=True):
        found = work_in(planned(part, tmp_path / "videos"))
        assert isinstance(found, VbenchJob)
        assert (found.config, found.total) == (part, total)


def test_unknown_kind_of_work_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("work: dance\n")
    with pytest.raises(BenchError, match=r"config\.yaml: unknown kind of work 'dance'\. Known: vbench gen"):
        kind_of(CellDir(tmp_path))


def test_profiles_know_vbenchs_dimensions() -> None:
    assert set(vbench_dimensions()) == set(DIMENSIONS)
