"""Work that goes on after its prompts or its reward's code were changed: refused, not mixed."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.base.errors import BenchError
from bench.experiment.cell_digests import check_unchanged
from bench.experiment.request import Options, build
from bench.run import launch
from bench.run.cell import run_cell
from bench.run.experiment import plan
from bench.run.process import Exit
from bench.run.store import CellDir
from tests.support.running import DOTS, status


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a reward `mine_run.fn`, of the module that it imports, and of prompts.txt."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine_run.py").write_text(
        "from mine_run_helper import FACTOR\n\ndef fn(images, prompts):\n"
        "    return images.mean(dim=(1, 2, 3)) * FACTOR\n"
    )
    (tmp_path / "mine_run_helper.py").write_text("FACTOR = 2\n")
    (tmp_path / "prompts.txt").write_text("a red dot\na blue dot\na green dot\n")
    yield tmp_path
    for name in ("mine_run", "mine_run_helper"):
        sys.modules.pop(name, None)


@pytest.mark.silent
@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("mine_run_helper.py", "FACTOR = -2\n", "reward python:mine_run.fn: changed since this was planned"),
        (
            "prompts.txt",
            "a red dot\na blue dot\na white dot\n",
            "prompts.txt': changed since this was planned",
        ),
    ],
)
def test_changed_reward_code_or_prompts_end_a_planned_cell_with_one_message(
    mine: Path, plugin: None, file: str, text: str, message: str
) -> None:
    options = Options(
        methods="ddpo",
        model=str(DOTS),
        reward="python:mine_run.fn",
        prompts=str(mine / "prompts.txt"),
        steps=1,
        out=mine / "out",
    )
    ready, _ = launch.prepare(plan(build(options), force=False).todo, force=False)
    first, second = (CellDir(work.directory.path) for work in ready)
    assert run_cell(first, None) is Exit.DONE
    (mine / file).write_text(text)
    assert run_cell(second, None) is Exit.FAILED
    assert message in status(second)["message"]
    assert "\n" not in status(second)["message"]


def test_what_has_no_digest_on_record_or_was_not_there_is_not_compared() -> None:
    check_unchanged({}, "animals", [])
    check_unchanged({"prompts": "missing animals"}, "animals", [])
    with pytest.raises(BenchError, match="prompts 'animals': changed"):
        check_unchanged({"prompts": "0123456789abcdef"}, "animals", [])
