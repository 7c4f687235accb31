from .workload import Workload, workload

__all__ = ["Workload", "workload"]
