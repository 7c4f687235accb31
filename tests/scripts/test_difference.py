"""Differences of pairs of methods, as the script prints them."""

import sys
from pathlib import Path

import pytest

from bench.protocol.measures import over
from bench.protocol.reading import read_record
from bench.report.stats import holm
from bench.report.tables import probability
from scripts import difference
from tests.protocol.records import Made, maker

METHODS = {
    "truncated_bp": Made({"clip": 0.2}, sits_out=("no-gradient",)),
    "ddpo": Made({"clip": 0.19, "jpeg": 0.2}, of_run=0.01),
    "reinforce": Made({"clip": 0.05, "jpeg": 0.19}, of_run=0.01),
}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Three methods on three workloads, one of which `truncated_bp` sits out."""
    return maker(methods=METHODS).write(tmp_path / "record")


def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["difference", *map(str, words)])
    difference.main()
    return capsys.readouterr().out.splitlines()


def test_all_pairs_are_in_one_aligned_table_and_adjusted_together(
    record: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    header, *lines = printed(monkeypatch, capsys, record, "truncated_bp:ddpo", "ddpo:reinforce")
    assert [line.split()[0] for line in lines] == [
        "truncated_bp", "easy", "hard", "ddpo", "easy", "hard", "no-gradient"
    ]  # fmt: skip
    rows = [line for line in lines if line.startswith("  ")]
    assert {len(line) for line in (header, *rows)} == {len(header)} and len(header) <= 80
    tables = read_record(record).tables
    found = [over(tables[name], "truncated_bp", "ddpo", "clip", 4) for name in ("easy", "hard")]
    found += [over(tables[name], "ddpo", "reinforce", "clip", 4) for name in ("easy", "hard")]
    found.append(over(tables["no-gradient"], "ddpo", "reinforce", "jpeg", 4))
    p = [one.p for one in found]
    assert [row.split()[-2:] for row in rows] == [
        [probability(own), probability(both)] for own, both in zip(p, holm(p), strict=True)
    ]
    assert [float(row.split()[1]) for row in rows] == pytest.approx([one.mean for one in found], abs=1e-3)


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("truncated_bp:nobody", "has no method 'nobody'; it has truncated_bp, ddpo, reinforce"),
        ("truncated_bp", "'truncated_bp': give two methods with a colon between them"),
    ],
)
def test_what_the_record_lacks_is_a_message(
    record: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pair: str, said: str
) -> None:
    with pytest.raises(SystemExit):
        printed(monkeypatch, capsys, record, pair)
    assert said in capsys.readouterr().err


def test_a_folder_without_a_record_is_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        printed(monkeypatch, capsys, tmp_path, "ddpo:reinforce")
    assert f"{tmp_path}: no suite.yaml" in capsys.readouterr().err
