"""The networks that an object holds, whatever its class."""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType, MethodType

from torch import Tensor, nn


def networks_in(thing: object, name: str = "", depth: int = 3) -> Iterator[tuple[str, nn.Module]]:
    """The networks that an object holds, also in objects and lists that it holds, by attribute name."""
    if isinstance(thing, nn.Module):
        yield name, thing
    elif depth == 0 or isinstance(thing, (str, bytes, Tensor, type, FunctionType, MethodType)):
        return
    elif isinstance(thing, (list, tuple)):
        for item in thing:
            yield from networks_in(item, name, depth)
    elif hasattr(thing, "__dict__"):
        for key, value in vars(thing).items():
            yield from networks_in(value, key, depth - 1)
