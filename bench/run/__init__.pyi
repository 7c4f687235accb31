from .store import CellDir, ResultsDir

__all__ = [
    "CellDir",
    "ResultsDir",
]
