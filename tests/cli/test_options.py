from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from bench.cli.main import app
from bench.experiment.request import Options


def commands(group: Any, *names: str) -> Iterator[list[str]]:
    """The names of every command, the hidden ones too."""
    for name, command in group.commands.items():
        yield from commands(command, *names, name) if hasattr(command, "commands") else [[*names, name]]


@pytest.mark.parametrize("names", list(commands(typer.main.get_command(app))), ids=" ".join)
def test_help_fits_80_columns_and_nothing_in_it_is_cut_off(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    done = CliRunner().invoke(app, [*names, "--help"])
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "…" in line and "VALUE…" not in line]


def test_options_of_an_experiment_are_given_by_name() -> None:
    with pytest.raises(TypeError, match="positional"):
        Options("rlr")  # type: ignore[misc]
