"""Networks as shapes alone: while memory is simulated, loaders fill in no numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

from bench.base.lazy import torch

Blank: TypeAlias = "Callable[[torch.nn.Module], None]"
_blank: ContextVar[Blank | None] = ContextVar("blank", default=None)


def only_shapes(module: torch.nn.Module) -> bool:
    """Ask before filling a network with numbers: True where its weights were replaced by stand-ins."""
    blank = _blank.get()
    if blank is not None:
        blank(module)
    return blank is not None


@contextmanager
def shapes_only(blank: Blank) -> Iterator[None]:
    """Within the context, `blank` is given every network that would be filled with random numbers."""
    token = _blank.set(blank)
    try:
        yield
    finally:
        _blank.reset(token)
