"""Who may import whom: each room's `__init__.py` says it, and every import is held against it."""

from graphlib import TopologicalSorter

from scripts.rooms import PICTURE, ROOT, forbidden, imports, may_import, modules, picture


def test_rooms_import_only_what_they_may() -> None:
    assert forbidden() == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = modules()
    graph = {name: {target for target, _ in imports(path, known)} for name, path in known.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_mathematics_imports_base_alone() -> None:
    table = may_import()
    assert table["engine"] == ("base",)
    assert table["base"] == ()
    assert set(table["methods"]) == {"engine", "base"}


def test_nothing_lies_loose_in_the_package() -> None:
    loose = {path.name for path in (ROOT / "bench").iterdir() if path.is_file()}
    assert loose == {"__init__.py", "__init__.pyi", "__main__.py", "py.typed"}


def test_the_picture_in_the_docs_is_that_of_the_table() -> None:
    assert PICTURE.read_text() == picture(), "run `python -m scripts.rooms`"
