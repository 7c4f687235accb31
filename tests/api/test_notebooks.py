"""The notebooks of the documentation run from the first cell to the last, and show what came out."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from scripts.notebooks import NOTEBOOKS, executed

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # all but tabs and ends of lines
MOST_BYTES = 300_000
NAMED = [pytest.param(path, id=path.stem) for path in NOTEBOOKS]


def texts(found: NotebookNode) -> list[str]:
    """What the cells printed and returned as text."""
    outputs = [one for cell in found.cells if cell.cell_type == "code" for one in cell.outputs]
    return [one.text if "text" in one else one.data["text/plain"] for one in outputs]


def kinds(found: NotebookNode) -> list[set[tuple[str, ...]]]:
    """The kinds of what each cell gave."""
    return [
        {(one.output_type, *sorted(one.get("data", ())), one.get("name", "")) for one in cell.outputs}
        for cell in found.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.parametrize("notebook", NAMED)
def test_what_is_stored_is_small_and_nobody_elses(notebook: Path) -> None:
    found = nbformat.read(notebook, as_version=4)
    nbformat.validate(found)
    cells = [cell for cell in found.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert notebook.stat().st_size < MOST_BYTES
    assert not [text for text in texts(found) if CONTROL.search(text)]
    assert "/tmp" not in notebook.read_text()
    assert all(name != "stderr" for kind in kinds(found) for *_, name in kind)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NAMED)
def test_it_runs_and_gives_what_is_stored_but_for_the_numbers(notebook: Path, tmp_path: Path) -> None:
    found = executed(notebook, tmp_path)
    assert kinds(found) == kinds(nbformat.read(notebook, as_version=4))
    assert not [text for text in texts(found) if CONTROL.search(text)]
