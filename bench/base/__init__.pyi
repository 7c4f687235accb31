from .errors import BenchError, did_you_mean
from .files import append_rows, read_rows, write_atomically
from .layers import Layers
from .registry import entries, find
from .strict import Strict

__all__ = [
    "BenchError",
    "Layers",
    "Strict",
    "append_rows",
    "did_you_mean",
    "entries",
    "find",
    "read_rows",
    "write_atomically",
]
