"""Versions against the ranges of pyproject.toml, and the scorers that are installed apart."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from bench.base import registry
from bench.base.layers import config_dir
from bench.cli.doctor.lines import Finding, Mark
from bench.data.packages import INSTALL, command, installed, wanted
from bench.experiment.ingredients import reward_list

DISTRIBUTION = "reward-finetuning-bench"


def core() -> Iterator[Finding]:
    """What the program cannot do without: bad ones each, good ones in one line."""
    tested, good, others = tested_versions(), [], []
    for requirement in requirements():
        installed = version(requirement.name)
        wanted = str(requirement.specifier)
        if installed is None:
            fix = f"pip install '{requirement.name}{wanted}'"
            yield Finding(requirement.name, f"not installed; type: {fix}", Mark.BAD)
        elif not requirement.specifier.contains(installed, prereleases=True):
            fix = f"pip install '{requirement.name}{wanted}'"
            yield Finding(requirement.name, f"{installed}, wanted {wanted}; type: {fix}", Mark.NOTE)
        else:
            good.append(f"{requirement.name} {installed}")
            same = tested.get(canonical(requirement.name))
            if same is not None and same != installed.partition("+")[0]:
                others.append(f"{requirement.name} {installed} (tested: {same})")
    yield Finding("in range", ", ".join(good))
    if others:
        yield Finding(
            "untested", ", ".join(others) + "; as tested: pip install -c constraints.txt …", Mark.NOTE
        )


def scorers() -> Iterator[Finding]:
    """Packages that some rewards are made of, and VBench's."""
    configs = [registry.load("reward", name).Config for name in reward_list()]
    named = {package: command(config) for config in configs for package in wanted(config)}
    named["vbench"] = INSTALL
    present = [f"{module} {_module_version(module)}" for module in named if installed(module)]
    if present:
        yield Finding("installed", ", ".join(present))
    for how in dict.fromkeys(named.values()):
        lacking = [module for module, its in named.items() if its == how and not installed(module)]
        if lacking:
            yield Finding("missing", f"{', '.join(lacking)}; docs/scorers.md; type:\n{how}")


def version(distribution: str) -> str | None:
    """Of an installed distribution."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _module_version(module: str) -> str:
    names = metadata.packages_distributions()
    found = version(names[module][0]) if module in names else None
    return found or ""


def requirements() -> list[Requirement]:
    """The project's: of the checkout's pyproject.toml, else of the installed wheel."""
    file = config_dir().parent / "pyproject.toml"
    if file.is_file():
        texts = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        texts = [text for text in metadata.requires(DISTRIBUTION) or () if "extra ==" not in text]
    return [Requirement(text) for text in texts]


def tested_versions() -> dict[str, str]:
    """Name → version in the checkout's constraints.txt; nothing in an installed wheel."""
    file = config_dir().parent / "constraints.txt"
    if not file.is_file():
        return {}
    pairs = (line.split("==") for line in file.read_text(encoding="utf-8").splitlines() if "==" in line)
    return {canonical(name): wanted.strip() for name, wanted in pairs}


def canonical(name: str) -> str:
    """As package indexes compare names."""
    return re.sub(r"[-_.]+", "-", name).strip().lower()
