"""The rooms of the program and who may import whom: read from the code, checked by tests/test_imports.py.

Each room's `__init__.py` ends its docstring with a line `Imports: base, engine.` that names the rooms it may
import. `python -m scripts.rooms` draws docs/images/rooms.svg from these lines and prints the lines of code in
each room.
"""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUTSIDE = ("methods", "rewards")  # rooms that are packages of their own beside bench/


def room_dirs() -> dict[str, Path]:
    """Room → its folder, in the order in which they are built on one another."""
    inside = {path.parent.name: path.parent for path in (ROOT / "bench").glob("*/__init__.py")}
    folders = inside | {name: ROOT / name for name in OUTSIDE}
    table = {name: _declared(folder) for name, folder in folders.items()}
    return {name: folders[name] for name in TopologicalSorter(table).static_order()}


def may_import() -> dict[str, tuple[str, ...]]:
    """Room → the rooms that its docstring allows it to import. Raises ValueError without that line."""
    return {name: _declared(folder) for name, folder in room_dirs().items()}


def _declared(folder: Path) -> tuple[str, ...]:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    line = re.search(r"^Imports: (.+)\.$", text, re.MULTILINE)
    if line is None:
        raise ValueError(
            f"{folder}/__init__.py: its docstring lacks the line 'Imports: …' (or 'Imports: none.')"
        )
    return () if line[1] == "none" else tuple(line[1].split(", "))


def modules() -> dict[str, Path]:
    """Dotted name → file of every module of the rooms."""
    files = [path for folder in room_dirs().values() for path in sorted(folder.rglob("*.py"))]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
    }


def imports(path: Path, known: dict[str, Path]) -> set[tuple[str, int]]:
    """(module, line) of everything of `known` that a file imports, inside functions too."""
    found: set[tuple[str, int]] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in names]
        else:
            continue
        found |= {(name, node.lineno) for name in names if name in known}
    return found


def room_of(module: str) -> str:
    """The room that a module lies in."""
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == "bench" else first


def forbidden() -> list[str]:
    """One message for each import that a room's docstring does not allow: where it is, and both rooms."""
    table, known = may_import(), modules()
    return [
        f"{path.relative_to(ROOT)}:{line}: room '{room}' imports '{target}' of room '{other}' and may import "
        f"{', '.join(table[room]) or 'no other room'} ({room}/__init__.py)"
        for module, path in known.items()
        for target, line in sorted(imports(path, known))
        if (room := room_of(module)) != (other := room_of(target)) and other not in table[room]
    ]


def lines(folder: Path) -> int:
    """Lines of Python in a folder."""
    return sum(len(path.read_text().splitlines()) for path in folder.rglob("*.py"))


def purpose(folder: Path) -> str:
    """The first sentence of a room's docstring."""
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    return text.split("\n\n")[0].replace("\n", " ")
