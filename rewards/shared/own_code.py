"""The code of one's own behind a module: its file, and those that it imports from outside the environment.

Imports are read from the source, those inside functions too, so nothing is run to find them. What is
installed (site-packages), Python's own modules and this program's packages do not count: they are no part of
a user's code.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from pathlib import Path

from bench.base.errors import BenchError

INSTALLED = ("site-packages", "dist-packages")
PROGRAM = ("bench", "methods", "rewards")
IMPORTERS = ("import_module", "__import__")  # functions that import what a text names


def own_files(module: str) -> dict[str, Path]:
    """Dotted name → file (.py, or compiled) of everything that a module imports, directly or not, and that is
    code of one's own, in the order of their names; the module's own source is there wherever it lies. Empty
    files, as many `__init__.py` are, are left out.

    Raises BenchError for a file that is not Python.
    """
    importlib.invalidate_caches()  # files may be younger than the last look into their folder
    found: dict[str, Path] = {}
    seen, waiting = {module}, [module]
    while waiting:
        name = waiting.pop()
        spec = _spec(name)
        file = None if spec is None else _file(spec)
        if spec is None or file is None:  # optional and not here, or without a file
            continue
        if not _is_own(name, file) and (name != module or file.suffix != ".py"):
            continue
        found[name] = file
        package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
        new = {part for imported in _imported(file, package) for part in _with_packages(imported)}
        new |= set(_with_packages(name))
        waiting += sorted(new - seen)
        seen |= new
    return {name: found[name] for name in sorted(found) if found[name].stat().st_size}


def _is_own(name: str, file: Path) -> bool:
    top = name.partition(".")[0]
    return top not in PROGRAM and top not in sys.stdlib_module_names and not set(INSTALLED) & set(file.parts)


def _spec(name: str) -> ModuleSpec | None:
    """Where a module would come from, found without importing it or its packages; None if it is not there."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # `__main__`, which has no place of its own
        return None
    full = top
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        full = f"{full}.{part}"
        spec = PathFinder.find_spec(full, list(spec.submodule_search_locations))
    return spec


def _file(spec: ModuleSpec) -> Path | None:
    if not spec.has_location or spec.origin is None:
        return None
    return Path(spec.origin) if spec.origin.endswith((".py", *EXTENSION_SUFFIXES)) else None


def _with_packages(name: str) -> Iterator[str]:
    """`a.b.c` → `a`, `a.b`, `a.b.c`: importing a module runs its packages' files."""
    parts = name.split(".")
    yield from (".".join(parts[:n]) for n in range(1, len(parts) + 1))


def _imported(file: Path, package: str) -> Iterator[str]:
    """The names that a file imports; of `from a import b` both `a` and `a.b`, as `b` may be a module."""
    if file.suffix != ".py":
        return
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise BenchError(f"reward python: {file}{line}: is not Python, and is imported: {error}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), package)
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names if base and alias.name != "*"))
        elif isinstance(node, ast.Call) and (name := _named_in_call(node)):
            yield _absolute(name, package)


def _absolute(name: str, package: str) -> str:
    """`.b` in package `a` → `a.b`; empty where the dots lead out of the package."""
    try:
        return importlib.util.resolve_name(name, package)
    except ImportError:
        return ""


def _named_in_call(call: ast.Call) -> str:
    """`helper` of `importlib.import_module("helper")`; empty for other calls, or where it is computed."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    match call.args:
        case [ast.Constant(value=str(name)), *_] if function in IMPORTERS:
            return name
        case _:
            return ""
