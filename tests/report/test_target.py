"""Time to target in the report."""

import io
import math
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from bench.report import contests as module
from bench.report import target
from bench.report.load import load
from bench.report.report import write_report
from tests.report import fake


def test_the_target_is_reached_on_the_line_between_evaluations() -> None:
    points = [(0.0, 1.0), (10.0, 2.0), (20.0, 1.0), (30.0, 4.0)]
    assert target.crossing(points, 1.5) == 5
    assert target.crossing(points, 2.5) == 25
    assert target.crossing(points, 4.0) == 30
    assert target.crossing(points, 0.5) == 0
    assert target.crossing(points, 4.1) == math.inf
    assert target.crossing([(0.0, -math.inf), (10.0, 2.0)], 1.0) == 10


def test_without_a_workload_there_is_no_target(results: Path) -> None:
    assert target.section(load(results)) is None


@pytest.mark.slow
def test_the_report_says_when_each_method_reached_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "all_figures", lambda contest: [])
    root = fake.write(tmp_path / "r", ["vader", "rlr"], seeds=(0, 1), steps=30, pictures=False)
    request = yaml.safe_load((root / "experiment.yaml").read_text())
    (root / "experiment.yaml").write_text(yaml.safe_dump({**request, "target": 0.7}))
    found = target.section(load(root))
    assert found is not None
    assert found.header == ["method", "runs that reach it", "steps", "train s", "forwards"]
    (vader, rlr) = found.lines
    assert vader[:2] == ["vader", "2 of 2"] and 0 < float(vader[2]) < 30
    assert rlr[:2] == ["rlr", "0 of 2"] and rlr[2:] == ["–", "–", "–"]
    stream = io.StringIO()
    page = write_report(root, Console(file=stream, width=80)).read_text()
    assert "Time to target" in stream.getvalue() and '{"name":"target","value":0.7}' in page
