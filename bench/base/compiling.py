"""What torch.compile takes, which is told apart from the time of steps."""

import sys
import time


def compile_seconds() -> float:
    """Seconds that this process has spent compiling so far, by the clock; 0 where nothing was compiled."""
    if "torch._dynamo" not in sys.modules:
        return 0.0
    from torch._dynamo.utils import calculate_time_spent

    return calculate_time_spent()["total_wall_time"]


def clock() -> float:
    """Like time.perf_counter(), but it stands still while something is compiled."""
    return time.perf_counter() - compile_seconds()
