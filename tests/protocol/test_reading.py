"""Records that cannot be read are refused, with the file and the line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.base.errors import BenchError
from bench.protocol.reading import CURVES, RUNS, SCORES, SUITE, TRIALS, read_record
from tests.protocol.records import WORKLOADS, Row, change, change_yaml, maker, of


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """A record that keeps the protocol, to be spoilt."""
    return maker(workloads={"easy": WORKLOADS["easy"]}).write(tmp_path / "record")


@pytest.mark.parametrize(
    ("file", "edit", "said"),
    [
        (
            RUNS,
            lambda rows: of(rows, method="truncated_bp").update(forwards="many"),
            r"easy/runs\.csv:3: forwards: Input should be a valid number.*'many'",
        ),
        (TRIALS, lambda rows: rows[0].update(settings="{"), r"easy/trials\.csv:2: settings"),
        (
            CURVES,
            lambda rows: of(rows, method="truncated_bp").update(score=""),
            r"easy/curves\.csv:\d+: score: is missing",
        ),
        (
            SCORES,
            lambda rows: rows[1].update({"ddpo 0": "-"}),
            r"easy/scores\.csv:3: ddpo 0: Input should be a valid number.*'-'",
        ),
    ],
)
def test_lines_that_cannot_be_read_are_named(
    record: Path, file: str, edit: Callable[[list[Row]], object], said: str
) -> None:
    change(record / "easy" / file, edit)
    with pytest.raises(BenchError, match=said):
        read_record(record)


def test_a_table_without_a_column_and_a_suite_of_another_format_are_refused(record: Path) -> None:
    text = (record / "easy" / SCORES).read_text()
    (record / "easy" / SCORES).write_text(text.replace("prompt,", "picture,", 1))
    with pytest.raises(BenchError, match=r"easy/scores\.csv:1: no column prompt"):
        read_record(record)
    (record / "easy" / SCORES).write_text(text.replace("ddpo 2", "ddpo 0", 1))
    with pytest.raises(BenchError, match=r"easy/scores\.csv:1: column ddpo 0 is there 2 times"):
        read_record(record)
    change_yaml(record / SUITE, lambda tree: tree.update(format=2))
    with pytest.raises(BenchError, match=r"suite\.yaml: format"):
        read_record(record)
