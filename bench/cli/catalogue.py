"""What `bench list` shows: no plugin is imported, and no settings are."""

from rich.console import Console
from rich.table import Table

from bench.base import registry
from bench.base.layers import first_comment, profiles, shipped
from bench.data import prompts


def show_list(console: Console) -> None:
    """Everything that can be named on the command line, one line each."""
    methods = {name: entry.summary() for name, entry in registry.entries("method").items()}
    rewards = {name: entry.summary() for name, entry in registry.entries("reward").items()}
    _section(console, "methods", methods)
    _section(console, "rewards", rewards)
    _section(console, "prompts", dict(prompts.BUILT_IN))
    for kind in ("models", "experiments"):
        _section(console, kind, {name: first_comment(path) for name, path in shipped(kind).items()})
    _section(console, "SLURM profiles", {name: first_comment(path) for name, path in profiles().items()})
    console.print(
        "[dim]bench describe NAME shows settings. A model may also be path:DIRECTORY or hub:ORG/NAME, a "
        "reward a sum (hpsv2:1,aes:0.5) or python:module.function, prompts a file.[/dim]"
    )


def _section(console: Console, title: str, rows: dict[str, str | None]) -> None:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, show_header=False, padding=(0, 2)
    )
    table.add_column(min_width=14, no_wrap=True, style="cyan")
    table.add_column()
    for name, summary in rows.items():
        table.add_row(name, "(no description)" if summary is None else summary)
    console.print(table)
    console.print()
