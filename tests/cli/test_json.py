"""`--json`: one document on standard output, and nothing else there."""

import json
import math
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench.cli.as_json import tell
from tests.support.running import here


class Colour(Enum):
    RED = "red"


class Pair(NamedTuple):
    left: float
    right: Colour


@dataclass(frozen=True)
class Thing:
    place: Path
    pairs: tuple[Pair, ...]
    names: dict[int, str | None]


def test_a_document_has_no_numbers_that_json_has_not(capsys: pytest.CaptureFixture[str]) -> None:
    tell(Thing(Path("a/b"), (Pair(math.nan, Colour.RED), Pair(1.5, Colour.RED)), {1: "ü", 2: None}))
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    pairs = [{"left": None, "right": "red"}, {"left": 1.5, "right": "red"}]
    assert found == {"place": "a/b", "pairs": pairs, "names": {"1": "ü", "2": None}}


@pytest.mark.slow
def test_doctor_tells_what_it_shows() -> None:
    words = ("doctor", "--model", "tiny", "--reward", "clip,jpeg", "--methods", "rlr,ddpo")
    printed, done = here(*words), here(*words, "--json")
    assert done.returncode == printed.returncode
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["demo"] is (done.returncode == 0)
    titles = [section["title"] for section in found["sections"]]
    assert all(title in printed.stdout for title in titles)
    rows = {row["rewards"][0]: row for row in found["can_run"]["rows"]}
    assert rows["jpeg"]["gradients"] == "no gradient" and rows["clip"]["others"].startswith("yes")
    assert found["can_run"]["methods"] == {"gradients": ["rlr"], "others": ["ddpo"]}


def test_a_mistake_leaves_standard_output_empty() -> None:
    for words in (("describe", "nothing-like-it"), ("list", "nothing-like-it"), ("status", "no/directory")):
        done = here(*words, "--json")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
