from .store import CellDir, ResultsDir
from .work import CellWork, Work, work_in

__all__ = [
    "CellDir",
    "CellWork",
    "ResultsDir",
    "Work",
    "work_in",
]
