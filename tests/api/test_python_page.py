"""docs/python.md and the functions say the same, and the command line has no option that they lack."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bench
from bench import api
from bench.cli import gradients as gradients_command
from bench.cli import run as run_commands
from tests.report import fake_gradients
from tests.support.running import ROOT

PAGE = (ROOT / "docs" / "python.md").read_text()
FUNCTIONS = [name for name in bench.__all__ if name[0].islower()]
COMMANDS = {
    "run": run_commands.run,
    "sample": run_commands.sample,
    "report": run_commands.report,
    "gradients": gradients_command.gradients,
}
NAME = re.compile(r"`([a-z][\w.]*)`")


def section(title: str, marks: str) -> str:
    """What stands under a heading."""
    (found,) = re.findall(
        rf"^{marks} {re.escape(title)}\n(.*?)(?=^#{{1,{len(marks)}}} |\Z)", PAGE, re.M | re.S
    )
    return found


def first_column(text: str) -> list[str]:
    """The names in the first column of the tables in a text."""
    return [name for line in re.findall(r"^\| ([^|]*) \|", text, re.M) for name in NAME.findall(line)]


def signature(function: Callable[..., Any]) -> str:
    """Names and defaults, without types."""
    found = inspect.signature(function)
    bare = [
        one.replace(
            annotation=one.empty, default=str(one.default) if isinstance(one.default, Path) else one.default
        )
        for one in found.parameters.values()
    ]
    return str(found.replace(parameters=bare, return_annotation=found.empty))


def test_every_function_has_a_section_and_every_section_a_function() -> None:
    assert re.findall(r"^## bench\.(\w+)$", PAGE, re.M) == [
        "run", "load", "report", "gradients", "sample", "methods", "rewards", "models",
    ]  # fmt: skip
    assert sorted(re.findall(r"^## bench\.(\w+)$", PAGE, re.M)) == sorted(FUNCTIONS)
    for name in set(bench.__all__) - set(FUNCTIONS):
        assert name in PAGE
    assert bench.__all__ == api.__all__


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures_are_those_of_the_code(name: str) -> None:
    text = section(f"bench.{name}", "##")
    (block,) = re.findall(r"```python\n(.*?)\n```", text, re.S)
    function = getattr(bench, name)
    assert " ".join(block.split()) == f"bench.{name}{signature(function)}"
    documented = first_column(text)
    assert len(documented) == len(set(documented))
    if name != "load":
        assert set(documented) == set(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_an_argument(name: str) -> None:
    """And with the same default, if it is one of both."""
    options, arguments = (inspect.signature(one).parameters for one in (COMMANDS[name], getattr(api, name)))
    assert set(options) - {"as_json"} <= set(arguments)  # `bench.load` is that
    differ = {
        key for key, one in options.items() if key in arguments and one.default != arguments[key].default
    }
    assert differ == ({"out"} if name == "sample" else set())  # the command has to put pictures somewhere


@pytest.mark.slow
def test_columns_are_those_of_the_tables(trained: bench.Results) -> None:
    keys = first_column(section("Results", "##").partition("\n### ")[0])
    assert keys == list(trained.cells.columns[:7])
    for name in ("cells", "metrics", "terms", "evaluations", "inference"):
        found = [column for column in getattr(trained, name).columns if not column.startswith("extra.")]
        documented = {*keys, *first_column(section(name, "###"))}
        if name == "evaluations":
            documented.add("trained_on")
        assert set(found) == documented, name


@pytest.mark.slow
def test_columns_of_the_summary(trained: bench.Results) -> None:
    documented = set(first_column(section("summary", "###"))) - {"gain_REWARD"}
    found = set(trained.summary.columns)
    assert {one for one in found if one in documented or not one.startswith("gain_")} == documented


def test_columns_of_gradient_profiles(tmp_path: Path) -> None:
    found = set(bench.load(fake_gradients.write(tmp_path)).gradients.columns)
    assert set(first_column(section("gradients", "###"))) <= found
    page = (
        (ROOT / "docs" / "gradients.md").read_text().partition("### gradients.csv")[2].partition("\n### ")[0]
    )
    named = {*first_column(page)} - {"reward", "_lo", "_hi"} | {"reward", "reward_mean"}
    assert named - found == set()


@pytest.mark.parametrize("name", ["methods", "rewards", "models"])
def test_columns_of_what_can_be_named(name: str) -> None:
    found = getattr(bench, name)()
    assert NAME.findall(section(f"bench.{name}", "##")) == list(found.columns)
    assert found.index.is_unique
