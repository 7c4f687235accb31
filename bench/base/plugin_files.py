"""What the file of a method, a reward or a model family says of itself, read without importing it.

Such a file has one class with a line `name = "…"`, the name that the command line takes. Other lines of the
class whose values are written out, such as `parameters = 986_109_441`, can be read in the same way.
"""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
SPELT_OUT = re.compile(r"""^[ \t]+name\s*(?::[^=\n]*)?=\s*["']([\w-]+)["']""", re.MULTILINE)


class Contents(NamedTuple):
    """A file's docstring, and of its classes by name the attributes whose values are written out."""

    docstring: str | None
    classes: dict[str, dict[str, Any]]


class Declaration(NamedTuple):
    """What a file defines. cls: the class; problem: why it cannot be used, where it is and what to do."""

    name: str
    cls: str = ""
    problem: str | None = None


def contents(path: Path) -> Contents:
    """What can be read in a file without importing it. Raises SyntaxError."""
    return _contents(path, path.stat().st_mtime_ns)


@cache
def _contents(path: Path, changed: int) -> Contents:
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except ValueError as error:  # bytes of zero, before Python 3.12
        raise SyntaxError(str(error), (str(path), 1, None, None)) from error
    classes = {node.name: _literals(node) for node in tree.body if isinstance(node, ast.ClassDef)}
    return Contents(ast.get_docstring(tree), classes)


def _literals(cls: ast.ClassDef) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in cls.body:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        value = line.value if isinstance(line, ast.Assign | ast.AnnAssign) else None
        for target in targets:
            if isinstance(target, ast.Name) and value is not None:
                try:
                    found[target.id] = ast.literal_eval(value)
                except ValueError:  # a computation
                    continue
    return found


def declaration(path: Path, shown: str) -> Declaration | None:
    """The class with a name in a file; None if it has none. shown: the path, for messages."""
    try:
        classes = contents(path).classes
    except SyntaxError as error:
        spelt_out = SPELT_OUT.search(path.read_text(encoding="utf-8", errors="replace"))
        name = path.stem if spelt_out is None else spelt_out[1]
        return Declaration(name, problem=f"{shown}, line {error.lineno}: {error.msg}")
    named = [(cls, name) for cls, said in classes.items() if isinstance(name := said.get("name"), str)]
    if not named:
        return None
    cls, name = named[0]
    if len(named) > 1:
        both = " and ".join(f"{cls} ('{name}')" for cls, name in named[:2])
        return Declaration(name, cls, f"{shown}: {both} both have a name; give each a file of its own")
    if not NAME.fullmatch(name):
        wanted = "a name is of letters, digits, - and _"
        return Declaration(path.stem, cls, f"{shown}: {cls}.name is {name!r}; {wanted}")
    return Declaration(name, cls)
