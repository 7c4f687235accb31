from .identity import cell_id
from .overrides import Override
from .request import Experiment, Options, build
from .resolve import Cell, resolve_all
from .settings import CellConfig, EvalConfig, TrainConfig

__all__ = [
    "Cell",
    "CellConfig",
    "EvalConfig",
    "Experiment",
    "Options",
    "Override",
    "TrainConfig",
    "build",
    "cell_id",
    "resolve_all",
]
