"""Rooms that share their name with a function of the Python API: `bench.run`, `bench.report`, `bench.models`.

Whoever imports a room makes it an attribute of `bench`, in place of the function. So such a room can be
called as well, which calls the function.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

API = "bench.api"


class CallableRoom(ModuleType):
    """A module that is called as the function of its name in the Python API, and documented as that."""

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The function; `inspect.signature` shows its arguments."""
        return getattr(importlib.import_module(API), self.__name__.rpartition(".")[2])

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """What the function returns."""
        return self.__wrapped__(*arguments, **options)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self.__wrapped__.__doc__


def also_function(room: str) -> None:
    """Let the module of that name be called. The room's `__init__.py` says so of itself."""
    sys.modules[room].__class__ = CallableRoom
