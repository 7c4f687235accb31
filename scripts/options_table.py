"""The table of all options in docs/cli.md, from the commands themselves: python -m scripts.options_table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer.main

from bench.cli.main import app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
BEGIN, END = "<!-- python -m scripts.options_table writes from here -->\n", "<!-- to here -->\n"
HELP = "--help"


class Use(NamedTuple):
    """An option of a command. spellings: the preferred one first. value: its word; none of a switch."""

    command: str
    spellings: tuple[str, ...]
    value: str
    meaning: str


def commands(group: Any, *names: str) -> Iterator[tuple[str, Any]]:
    """Every command that is shown, with its name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *names, name)
        elif not command.hidden:
            yield " ".join([*names, name]), command


def uses() -> list[Use]:
    """Every option of every command, in the order of commands."""
    found: list[Use] = []
    for name, command in commands(typer.main.get_command(app)):
        for option in command.params:
            if option.param_type_name == "option" and not option.hidden and HELP not in option.opts:
                spellings = (*option.opts, *option.secondary_opts)
                found.append(Use(name, spellings, option.metavar or "", option.help or ""))
    return found


def table() -> str:
    """One line for each option: spellings, meaning, commands."""
    found, everywhere = uses(), {name for name, _ in commands(typer.main.get_command(app))}
    lines = ["| option | meaning | commands |", "|---|---|---|"]
    for first in sorted({use.spellings[0] for use in found}):
        same = [use for use in found if use.spellings[0] == first]
        values = "/".join(dict.fromkeys(use.value for use in same if use.value))
        spellings = dict.fromkeys(spelling for use in same for spelling in use.spellings)
        spelled = ", ".join(f"`{spelling}`" for spelling in spellings)
        where = [f"`{use.command}`" for use in same]
        told = "all" if len(where) == len(everywhere) else ", ".join(where)
        meanings = "; ".join(dict.fromkeys(use.meaning for use in same)).replace("|", "\\|")
        lines.append(f"| {spelled}{f' {values}' if values else ''} | {meanings} | {told} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table into the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
