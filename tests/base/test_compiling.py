"""The clock that stands still while something is compiled."""

import time

import torch

from bench.base.compiling import clock, compile_seconds


def test_what_compiling_takes_is_counted_and_no_part_of_the_clock() -> None:
    compiled = torch.compile(lambda x: (x * 2 + 1).sum(), backend="eager")
    by_wall, by_clock, before = time.perf_counter(), clock(), compile_seconds()
    compiled(torch.ones(3))
    taken = compile_seconds() - before
    assert taken > 0
    assert clock() - by_clock <= time.perf_counter() - by_wall - taken
    compiled(torch.ones(3))  # compiled already
    assert compile_seconds() - before == taken
