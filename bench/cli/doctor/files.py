"""Which models, rewards and prompt sets are on this machine, or what to type."""

from __future__ import annotations

from collections.abc import Iterator

from bench.base.units import readable_size
from bench.cli.doctor.lines import Finding, Mark
from bench.cli.doctor.machine import tilde
from bench.cli.fetch import where
from bench.data.prompts import BUILT_IN
from bench.data.sources import look
from bench.experiment.ingredients import Ingredient

NO_FILES = {"model": "needs no files", "reward": "needs no weights", "prompts": "a file of yours"}


def lines(ingredient: Ingredient) -> Iterator[Finding]:
    """Where its files are; one line if all are in one state."""
    name, command = ingredient.name, f"python -m bench fetch --{ingredient.kind} {ingredient.name}"
    found = [look(need) for need in ingredient.needs]
    if not found:
        shipped = ingredient.kind == "prompts" and name in BUILT_IN
        yield Finding(name, "ships with this package" if shipped else NO_FILES[ingredient.kind])
    elif all(one.path is None and one.problem is None for one in found):
        size = f" ({readable_size(ingredient.gigabytes * 1e9)})" if ingredient.gigabytes else ""
        yield Finding(name, f"not here{size}: {command}")
    else:
        for one in found:
            if one.path is not None:
                yield Finding(name, f"{readable_size(one.size)} at {tilde(one.path)}")
            elif one.problem is not None:  # what the package should have brought along is essential
                yield Finding(name, one.problem, Mark.BAD if one.need.kind == "embedded" else Mark.NOTE)
            else:
                yield Finding(name, f"{where(one)}: {command}", Mark.NOTE)
