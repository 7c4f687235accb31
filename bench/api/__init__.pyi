from .catalogue import methods, models, rewards
from .profiling import gradients
from .reporting import report
from .results import CellsFailed, Results, load
from .running import run
from .sampling import sample
from .words import BenchError

__all__ = [
    "BenchError",
    "CellsFailed",
    "Results",
    "gradients",
    "load",
    "methods",
    "models",
    "report",
    "rewards",
    "run",
    "sample",
]
