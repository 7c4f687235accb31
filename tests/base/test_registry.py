import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from bench.base import registry
from bench.base.errors import BenchError
from bench.cli.catalogue import items, show
from tests.support.running import ROOT


@pytest.mark.parametrize("group", ["method", "reward", "model"])
def test_every_registered_name_loads_and_describes_itself(group: registry.Group) -> None:
    for entry in registry.entries(group).values():
        assert callable(entry.load())
        assert entry.summary(), f"{entry.target} needs a docstring"


def test_unknown_name_suggests_the_closest_and_lists_all() -> None:
    known = "adjoint_matching, alignprop, awm, ddpo"
    with pytest.raises(BenchError, match=rf"unknown method 'dppo'\. Did you mean 'ddpo'\? Known: {known}"):
        registry.load("method", "dppo")


def test_outside_plugin_is_found_by_entry_point(plugin: None) -> None:
    entry = registry.find("method", "push")
    assert entry.plugin == "bench-test-plugin"
    assert (
        entry.summary()
        == "An outside plugin as a user would write it, small enough that a whole cell runs in a second."
    )
    assert entry.load().__name__ == "Push"


def test_plugin_that_takes_an_existing_name_is_refused(plugin: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = registry.Entry("method", "push", "methods.push:Push")
    monkeypatch.setattr(registry, "own", lambda group: {"push": ours})
    with pytest.raises(
        BenchError, match="plugin bench-test-plugin registers method 'push', which already exists"
    ):
        registry.entries("method")


def test_module_that_cannot_be_imported_is_named() -> None:
    entry = registry.Entry("reward", "mine", "no.such.module:Mine", plugin="my-package")
    with pytest.raises(
        BenchError, match=r"reward 'mine' of plugin my-package: cannot import no\.such\.module:Mine"
    ):
        entry.load()
    assert entry.summary() is None


PLAIN = '"""Mine."""\n\nclass Mine:\n    name = "mine"\n'


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder in the place of methods/."""
    folder = tmp_path / "scratch_methods"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(registry.FOLDERS, "method", folder.name)
    yield folder
    for module in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[module]


def test_a_method_is_found_from_its_file_alone(scratch: Path) -> None:
    (scratch / "some_file.py").write_text(PLAIN)
    (scratch / "_helpers.py").write_text("HELP = 1\n")
    found = registry.own("method")
    assert list(found) == ["mine"]
    assert found["mine"].target == "scratch_methods.some_file:Mine"
    assert found["mine"].summary() == "Mine." and found["mine"].load().__name__ == "Mine"


@pytest.mark.parametrize(
    ("text", "name", "problem"),
    [
        (PLAIN + "    def f(self:\n", "mine", r"bad\.py, line 5: '\(' was never closed"),
        ("def f(:\n", "bad", r"bad\.py, line 1: invalid syntax"),
        ("x = 1\n", "bad", r"bad\.py: no class in it has a line `name = .*begin its name with _"),
        ("class Mine:\n    name = str()\n", "bad", r"bad\.py: no class in it has a line"),
        ('class Mine:\n    name = "my method"\n', "bad", r"Mine\.name is 'my method'; a name is of letters"),
        (PLAIN + 'class Other:\n    name = "other"\n', "mine", r"Mine \('mine'\) and Other \('other'\) both"),
        (PLAIN + "raise KeyError(3)\n", "mine", r"cannot import .*KeyError: 3 \(.*bad\.py, line 5\)"),
        (PLAIN + "import no_such_module\n", "mine", r"No module named .*bad\.py, line 5\)"),
        ("\0", "bad", r"bad\.py, line .*null bytes"),
    ],
)  # fmt: skip
def test_a_faulty_file_is_named_and_takes_no_other_with_it(
    scratch: Path, text: str, name: str, problem: str
) -> None:
    (scratch / "bad.py").write_text(text)
    (scratch / "good.py").write_text('class Good:\n    name = "good"\n')
    found = registry.own("method")
    assert found["good"].load().__name__ == "Good"
    with pytest.raises(BenchError, match=rf"method '{name}'.*{problem}"):
        found[name].load()


def test_two_files_with_one_name_are_both_named(scratch: Path) -> None:
    for file in ("first", "second"):
        (scratch / f"{file}.py").write_text(PLAIN)
    with pytest.raises(BenchError, match=r"scratch_methods\.first and .*second both have the name 'mine'"):
        registry.own("method")["mine"].load()


def test_a_faulty_file_is_listed_with_its_problem(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (scratch / "bad.py").write_text("def f(:\n")
    monkeypatch.setattr(registry, "_bases", lambda classes: {})
    registry.entries.cache_clear()
    for long in (False, True):
        show(Console(width=200), items(), long)
        assert "cannot be used" in capsys.readouterr().out
    with pytest.raises(BenchError, match=r"bad\.py, line 1"):
        registry.find("method", "bad")
    registry.entries.cache_clear()


def test_packages_are_listed_by_name() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("bench", "methods", "rewards")
        for path in (ROOT / top).rglob("*.py")
    }
    assert listed == found | {"bench.configs", "bench.results", "bench.slurm"}
    assert all((ROOT / Path(*name.split(".")) / "__init__.py").is_file() for name in found)
