"""Which models, rewards and prompt sets are on this machine, or what to type."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bench.cli.doctor.lines import Line, Mark
from bench.cli.doctor.machine import tilde
from bench.cli.fetch import readable_size
from bench.data.prompts import BUILT_IN
from bench.experiment.ingredients import Found, Piece, gigabytes, look

Maker = Callable[[str], Piece]
NO_FILES = {
    "model": "needs no files",
    "reward": "needs no weights",
    "prompts": "a file of yours",
}


def make(names: Sequence[str], maker: Maker) -> tuple[list[Piece], list[Line]]:
    """The pieces of these names, and lines about those that cannot even be described."""
    pieces, problems = list[Piece](), list[Line]()
    for name in names:
        try:
            pieces.append(maker(name))
        except Exception as error:  # whatever a broken package or plugin raises
            said = str(error).partition("\n")[0] or type(error).__name__
            problems.append(Line(name, said, Mark.NOTE))
    return pieces, problems


def lines(piece: Piece) -> Iterator[Line]:
    """Where its files are; one line if all are in one state."""
    found = [look(need) for need in piece.needs]
    if not found:
        shipped = piece.kind == "prompts" and piece.name in BUILT_IN
        yield Line(piece.name, "ships with this package" if shipped else NO_FILES[piece.kind])
    elif all(f.path is None and f.problem is None for f in found):
        size = gigabytes(piece)
        known = f" ({readable_size(size * 1e9)})" if size else ""
        yield Line(piece.name, f"not here{known}: {command(piece)}")
    else:
        for one in found:
            yield Line(piece.name, _text(one, piece), _mark(one))


def command(piece: Piece) -> str:
    """What fetches it."""
    return f"python -m bench fetch --{piece.kind} {piece.name}"


def _text(found: Found, piece: Piece) -> str:
    if found.problem is not None:
        return found.problem
    if found.path is None:
        return f"{found.need.source} not here: {command(piece)}"
    return f"{readable_size(found.size)} at {tilde(found.path)}"


def _mark(found: Found) -> Mark:
    """What the package should have brought along is essential."""
    if found.path is not None:
        return Mark.OK
    return Mark.BAD if found.need.kind == "embedded" else Mark.NOTE
