"""`bench new`: a working skeleton of a method or a reward, with its settings' file and its test."""

import keyword
import re
from enum import StrEnum
from pathlib import Path
from string import Template
from typing import Annotated

import typer
from rich.console import Console

from bench.base import registry
from bench.base.console import plain
from bench.base.errors import BenchError
from bench.base.layers import config_dir, shipped

SKELETONS = Path(__file__).parent / "skeletons"
NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
SECTIONS = ("all", "base", "train", "eval", "model", "sampler", "reward", "dcot", "experiment")  # of --set


class Skeleton(StrEnum):
    """What can be begun from a skeleton."""

    METHOD = "method"
    REWARD = "reward"


def new(
    kind: Annotated[Skeleton, typer.Argument(help="what it is")],
    name: Annotated[str, typer.Argument(help="what the command line will call it")],
) -> None:
    """Begin a method or a reward: write a working skeleton, its settings' file and its test."""
    console = Console()
    for path in write(kind, name, checkout()):
        plain(console, f"wrote {path}")
    tried = f"--methods {name}" if kind is Skeleton.METHOD else f"--reward {name} --methods full_bp"
    steps = [f"bench run {tried} --steps 2", f"pytest tests/{kind}s/test_{_module(name)}.py"]
    if kind is Skeleton.METHOD:
        steps.append(f"pytest tests/methods/test_conformance.py -k {name}")
    plain(console, "\n  python -m ".join(["Try it:", *steps]))


def checkout() -> Path:
    """The folder that this program runs from. Raises BenchError if that is an installed wheel."""
    root = config_dir().parent
    if not (root / "pyproject.toml").is_file():
        raise BenchError(
            "`bench new` writes into a checkout, and this is an installed package: clone the repository, or "
            "make a package of your own with an entry point (docs/configuration.md, Plugins)"
        )
    return root


def write(kind: Skeleton, name: str, root: Path) -> list[Path]:
    """Write the files of a new method or reward; returns their paths.

    Raises BenchError, with nothing written, for a name that cannot be used or a file that is there already.
    """
    module = _module(name)
    if not NAME.fullmatch(name) or keyword.iskeyword(module) or keyword.issoftkeyword(module):
        raise BenchError(f"'{name}' is no name for a {kind}: take small letters, digits, and - or _ between")
    taken = [*registry.entries("method"), *registry.entries("reward"), *shipped("models"), *SECTIONS]
    if name in taken:
        raise BenchError(f"there is a '{name}' already; take another name for the {kind}")
    targets = {
        f"{kind}.py": root / f"{kind}s" / f"{module}.py",
        f"{kind}.yaml": root / "configs" / f"{kind}s" / f"{name}.yaml",
        f"test_{kind}.py": root / "tests" / f"{kind}s" / f"test_{module}.py",
    }
    if there := [path for path in targets.values() if path.exists()]:
        raise BenchError(f"{there[0]} is there already, and nothing is overwritten")
    words = {"name": name, "module": module, "cls": "".join(map(str.capitalize, module.split("_")))}
    for skeleton, path in targets.items():
        text = (SKELETONS / f"{skeleton}.txt").read_text(encoding="utf-8")
        path.write_text(Template(text).substitute(words), encoding="utf-8")
    return list(targets.values())


def _module(name: str) -> str:
    return name.replace("-", "_")
