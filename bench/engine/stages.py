"""The engine's stages: a listener that measures seconds or memory hears when each begins and ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

ROLLOUT = "rollout"
DECODE = "decode"  # without its gradient
REWARD = "reward"  # with its gradient and the decoder's, where it is asked for
FIRST_ORDER = "first order"
HALF_ORDER = "half order"
ZEROTH_ORDER = "zeroth order"
OPTIMIZER = "optimizer"


class Listener(Protocol):
    """Measures stages. They nest: the innermost counts."""

    def enter(self, name: str) -> None:
        """Called when a stage of that name begins."""
        ...

    def leave(self) -> None:
        """The innermost stage ends."""
        ...


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Marks what runs inside as a stage, as a context or a decorator. Costs nothing where nobody listens."""
    listener = _listener.get()
    if listener is None:
        yield
        return
    listener.enter(name)
    try:
        yield
    finally:
        listener.leave()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within the context, the listener hears of every stage."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
