"""Which parts of a directory's videos or scores SLURM has or is going to have in work. No torch here."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from bench.base.console import plain
from bench.measure.vbench import jobs
from bench.measure.vbench import score as scoring
from bench.measure.vbench.jobs import Part
from bench.run import claims
from bench.run.slurm.settle import settle
from bench.run.store import ResultsDir


def live(results: ResultsDir) -> dict[str, Part]:
    """The cells that are queued or running. Those whose job is gone are given free."""
    cells = results.cells()
    queue, found = settle(results, cells), dict[str, Part]()
    for cell in cells:
        held, part = claims.read(cell), jobs.read(cell)
        if held is not None and part is not None and queue.alive(cell, *held):
            found[cell.id] = part
    return found


def without_sent(console: Console, asked: scoring.Asked) -> scoring.Asked:
    """What is left to score here: not the dimensions that SLURM has, of which it says so."""
    results = jobs.jobs_of(scoring.scores_of(asked))
    sent = live(results)
    for dimension in asked.dimensions:
        if dimension.name in sent:
            plain(console, f"{dimension.title:<24}left to SLURM: python -m bench status {results.path}")
    return replace(asked, dimensions=[one for one in asked.dimensions if one.name not in sent])
