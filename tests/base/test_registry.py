import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bench.base import registry
from bench.base.errors import BenchError
from tests.support.running import ROOT


@pytest.mark.parametrize("group", ["method", "reward", "model"])
def test_every_registered_name_loads_and_describes_itself(group: registry.Group) -> None:
    for entry in registry.entries(group).values():
        assert callable(entry.load())
        assert entry.summary(), f"{entry.target} needs a docstring"


def test_unknown_name_suggests_the_closest_and_lists_all() -> None:
    with pytest.raises(
        BenchError, match=r"unknown method 'dppo'\. Did you mean 'ddpo'\? Known: alignprop, ddpo"
    ):
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
    monkeypatch.setitem(registry.BUILT_IN["method"], "push", "methods.push:Push")
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


def test_listing_and_dry_checks_of_config_import_no_torch() -> None:
    code = (
        "import sys, io\n"
        "from rich.console import Console\n"
        "from bench.cli.catalogue import show_list\n"
        "import bench.cli.main, bench.experiment.resolve, bench.experiment.request\n"
        "import bench.run.store, bench.data.sources\n"
        "show_list(Console(file=io.StringIO()))\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_packages_are_listed_by_name() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("bench", "methods", "rewards")
        for path in (ROOT / top).rglob("*.py")
    }
    assert listed == found | {"bench.configs", "bench.slurm"}
    assert all((ROOT / Path(*name.split(".")) / "__init__.py").is_file() for name in found)
