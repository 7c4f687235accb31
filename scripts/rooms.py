"""The rooms of the program and who may import whom: read from the code, checked by tests/test_imports.py.

Each room's `__init__.py` ends its docstring with a line `Imports: base, engine.` that names the rooms it may
import. `python -m scripts.rooms` draws docs/images/rooms.svg from these lines and prints the lines of code in
each room.
"""

from __future__ import annotations

import ast
import re
import textwrap
from graphlib import TopologicalSorter
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
OUTSIDE = ("methods", "rewards")  # rooms that are packages of their own beside bench/
PICTURE = ROOT / "docs" / "images" / "rooms.svg"
WIDTH, HEIGHT, GAP = 420, 96, 44  # of a box, in pixels, and between boxes


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
    return text.split("\n\n")[0].replace("\n", " ").replace("`", "")


def drawn_arrows() -> list[tuple[str, str]]:
    """(room, room that it may import), without those that follow from others."""
    table = may_import()
    return [
        (room, other)
        for room, others in table.items()
        for other in others
        if not any(other in table[between] for between in others)
    ]


def picture() -> str:
    """The rooms as SVG: every room stands above all that it may import."""
    table, folders = may_import(), room_dirs()
    floors: dict[str, int] = {}
    for room in table:
        floors[room] = 1 + max((floors[other] for other in table[room]), default=-1)
    top = max(floors.values())
    where: dict[str, tuple[int, int]] = {}
    for floor in range(top + 1):
        rooms = [room for room in table if floors[room] == floor]
        for n, room in enumerate(sorted(rooms, key=lambda room: room in OUTSIDE)):
            where[room] = (GAP + n * (WIDTH + GAP), GAP + (top - floor) * (HEIGHT + GAP))
    width, height = 2 * WIDTH + 3 * GAP, (top + 1) * (HEIGHT + GAP) + GAP
    boxes = [_box(room, folders[room], *where[room]) for room in table]
    arrows = [_arrow(where[room], where[other]) for room, other in drawn_arrows()]
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            'font-family="sans-serif">',
            '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
            '<path d="M0,0 L8,4 L0,8 z" fill="#555"/></marker></defs>',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *arrows,
            *boxes,
            "</svg>\n",
        )
    )


def _box(room: str, folder: Path, x: int, y: int) -> str:
    colour = "#fdf3e1" if room in OUTSIDE else "#eaf1fb"
    name = f"{folder.relative_to(ROOT)}/"
    said = [
        f'<text x="{x + 12}" y="{y + 42 + 16 * n}" font-size="12" fill="#333">{escape(line)}</text>'
        for n, line in enumerate(textwrap.wrap(purpose(folder), 66)[:4])
    ]
    return "\n".join(
        (
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{colour}" stroke="#888"/>',
            f'<text x="{x + 12}" y="{y + 22}" font-size="15" font-weight="bold">{name}</text>',
            *said,
        )
    )


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    (x, y), (to_x, to_y) = start, end
    sideways = (to_x - x) // 6
    x1, x2 = x + WIDTH // 2 + sideways, to_x + WIDTH // 2 - sideways
    return (
        f'<line x1="{x1}" y1="{y + HEIGHT}" x2="{x2}" y2="{to_y}" stroke="#555" '
        'stroke-width="1.5" marker-end="url(#tip)"/>'
    )


def main() -> None:
    """Draw the picture; print lines of Python by room, and arrows that the table forbids."""
    PICTURE.write_text(picture())
    for room, folder in room_dirs().items():
        print(f"{room:<12} {lines(folder):>6}")
    print(*forbidden(), sep="\n")


if __name__ == "__main__":
    main()
