"""`bench report DIR --json`."""

import json
from pathlib import Path

from bench.cli.as_json import plain
from bench.report.as_object import as_object
from bench.report.load import load
from bench.report.summary import contest_lines


def test_the_summary_as_objects_has_the_numbers_of_the_table(results: Path) -> None:
    loaded = load(results)
    found = json.loads(json.dumps(plain(as_object(loaded)), allow_nan=False))
    ((contest, lines),) = contest_lines(loaded)
    (told,) = found["contests"]
    assert [line["label"] for line in told["lines"]] == [line.group.label for line in lines]
    for line, one in zip(lines, told["lines"], strict=True):
        assert one["score"]["mean"] == plain(line.score.mean)
        assert one["gains"].keys() == line.gains.keys()
        assert one["cost"]["forward_equivalents"] == plain(line.cost.forward_equivalents)
        assert len(one["cells"]) == len(line.group.cells)
    assert told["reward"] == contest.reward
    assert sum(one["score"]["mean"] is not None for one in told["lines"]) > 1
    assert {cell["state"] for cell in found["unfinished"]} == {"failed", "running"}
