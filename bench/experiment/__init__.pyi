from .identity import cell_id
from .settings import CellConfig, EvalConfig, TrainConfig

__all__ = [
    "CellConfig",
    "EvalConfig",
    "TrainConfig",
    "cell_id",
]
