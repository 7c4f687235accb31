"""Signals, where they can be listened to."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def listening(handler: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    """Within the context these signals call the handler. Not in another thread than the main one, where
    Python lets nobody listen: then they do what they did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
