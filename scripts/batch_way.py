"""Count the modules that one batch passes from `updates` to `.grad`: the number in docs/architecture.md.

    python -m scripts.batch_way

One batch of `rlr` on the tests' toy chain, staged, traced from its first call to its report. Models and
rewards are somebody else's rooms and do not count; neither does what only importing runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

from methods.rlr import Rlr, RlrConfig
from tests.support.toy import ToyChain
from tests.support.toys import batch_of, engine_of

ROOT = Path(__file__).resolve().parent.parent
OTHERS = ("bench/base/", "bench/models/", "rewards/", "tests/")


def way(steps: int = 5, samples: int = 4) -> dict[str, list[str]]:
    """Modules in the order in which they are first entered, each with its functions that ran."""
    chain = ToyChain(steps, 2)
    engine, method = engine_of(chain, micro_batch=2), Rlr(RlrConfig(h=2), steps)
    found: dict[str, list[str]] = {}

    def traced(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        path = Path(code.co_filename)
        if event != "call" or not path.is_relative_to(ROOT) or ".venv" in path.parts:
            return
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(OTHERS):
            functions = found.setdefault(name, [])
            if code.co_qualname not in functions:
                functions.append(code.co_qualname)

    updates = method.updates(engine, batch_of(samples))
    sys.setprofile(traced)
    try:
        next(iter(updates))
    finally:
        sys.setprofile(None)
    assert all(p.grad is not None for p in chain.parameters())
    return found


if __name__ == "__main__":
    modules = way()
    for place, (name, functions) in enumerate(modules.items(), 1):
        print(f"{place:2} {name}: {', '.join(functions)}")
