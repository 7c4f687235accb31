from .api import (
    BenchError,
    CellsFailed,
    Results,
    gradients,
    load,
    methods,
    models,
    report,
    rewards,
    run,
    sample,
)

__version__: str
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
