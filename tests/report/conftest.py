"""Made-up results, written once."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from bench.report.report import write_report
from tests.report import fake


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four methods with two seeds: one method failed, one still runs."""
    root = tmp_path_factory.mktemp("results") / "fight"
    return fake.write(
        root, ["rlr", "vader", "zo", "ddpo"], seeds=(0, 1), states={"zo": "failed", "ddpo": "running"}
    )


@pytest.fixture(scope="session")
def report(results: Path) -> tuple[Path, str]:
    """Its report.html, and what was printed on an 80 column terminal."""
    stream = io.StringIO()
    path = write_report(results, Console(file=stream, width=80))
    return path, stream.getvalue()
