from .over_optimised import Collapse, collapse, distances
from .report import write_report

__all__ = ["Collapse", "collapse", "distances", "write_report"]
