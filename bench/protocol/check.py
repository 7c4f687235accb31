"""Whether a record keeps the protocol: suite.yaml, and the records beside each other.

What can be seen from a record is checked here, in `check_tuning` and in `check_runs`. That scores were
measured as they stand there cannot be: whoever doubts them runs the suite again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from bench.base import registry
from bench.experiment.search import against_protocol, space
from bench.protocol.check_runs import run_faults
from bench.protocol.check_tuning import tuning_faults
from bench.protocol.faults import Fault, at, not_yet
from bench.protocol.reading import SCORES, SUITE, Record
from bench.protocol.workload import Workload
from bench.report.groups import NULL
from bench.report.load import BASE

VERSIONS = ("bench", "python", "torch", "diffusers", "peft", "device")
TOLERANCE = 0.02  # of base models: their means, in standard deviations over prompts


def check(record: Record, workloads: Mapping[str, Workload]) -> list[Fault]:
    """Everything in a record that is against the protocol. workloads: those that ship, by name."""
    found = [*_suite(record), *_workloads(record, workloads), *_sitting_out(record), *_spaces(record)]
    for name, workload in record.suite.workloads.items():
        if name not in record.tables:
            folder = at(record.folder / name)
            found.append(not_yet(folder, "there are no tables of this workload"))
            continue
        found += tuning_faults(record.suite, name, record.tables[name], workload)
        found += run_faults(record.suite, name, record.tables[name], workload)
    return found


def _suite(record: Record) -> Iterator[Fault]:
    path, suite = at(record.folder / SUITE), record.suite
    if NULL not in suite.methods:
        yield Fault(f"{path}: methods", f"there is no {NULL}, the null row")
    if len(set(suite.methods)) < len(suite.methods):
        yield Fault(f"{path}: methods", "one is named twice")
    for name in VERSIONS:
        if name not in suite.environment or suite.environment[name] in (None, ""):
            yield Fault(f"{path}: environment.{name}", "is not named")


def _workloads(record: Record, shipped: Mapping[str, Workload]) -> Iterator[Fault]:
    path, own = at(record.folder / SUITE), record.suite.workloads
    for name, workload in own.items():
        where = f"{path}: workloads.{name}"
        if name not in shipped:
            do = f"take it out of the record; these ship: {', '.join(shipped)}"
            yield Fault(where, "is no workload that ships", do)
            continue
        own_values, values = workload.model_dump(), shipped[name].model_dump()
        for key, value in values.items():
            if own_values[key] != value:
                what = f"is {own_values[key]!r}, and {value!r} in configs/workloads"
                yield Fault(f"{where}.{key}", what, "run the suite with the workload as it ships")
    for name in shipped:
        if name not in own:
            do = "run the suite with all workloads that ship"
            yield Fault(f"{path}: workloads", f"{name} is not in the record", do, missing=True)


def _sitting_out(record: Record) -> Iterator[Fault]:
    """Only a method that needs a gradient sits out, and only where there is none."""
    known, path = registry.entries("method"), at(record.folder / SUITE)
    for name, workload in record.suite.workloads.items():
        where = f"{path}: sits_out.{name}"
        for method in record.suite.methods:
            out = method not in record.suite.takes_part(name)
            if out and (workload.differentiable or (method in known and workload.takes(method))):
                yield Fault(where, f"{method} can take part", "run the suite with it there")
            if not out and method in known and not workload.takes(method):
                yield Fault(where, f"{method} needs a gradient that {workload.reward} lacks")


def _spaces(record: Record) -> Iterator[Fault]:
    """Spaces are those that the methods declare here. Of a method that is not installed, the record's own
    keeps the same rule as theirs."""
    path, known, search = at(record.folder / SUITE), registry.entries("method"), record.suite.search
    for method in record.suite.methods:
        own = search.get(method, {})
        if method in known and own != space(method):
            what = f"is not the search space that {method} declares in its YAML file"
            yield Fault(f"{path}: search.{method}", what, "run the suite with that space")
        elif method not in known:
            for key, what in against_protocol(own):
                do = "run the suite with a search space by docs/protocol.md"
                yield Fault(f"{path}: search.{method}.{key}", what, do)


def across(records: Sequence[Record], others: Sequence[Record] = ()) -> list[Fault]:
    """Where a record differs from another in what is to be the same for all: how many trials, studies and
    seeds, and the base model with its weights, prompts and noise. others: more records to compare with."""
    found = list[Fault]()
    for n, record in enumerate(records):
        if earlier := (*others, *records[:n]):
            found += _effort(record, earlier[0])
        for name in record.tables:
            first = next((other for other in (*others, *records[:n]) if name in other.tables), None)
            if first is not None:
                found += _base_models(name, record, first)
    return found


def _effort(record: Record, other: Record) -> Iterator[Fault]:
    for key in ("trials", "studies", "seeds"):
        ours, theirs = getattr(record.suite, key), getattr(other.suite, key)
        if ours != theirs:
            where = f"{at(record.folder / SUITE)}: {key}"
            yield Fault(where, f"{ours}, and {theirs} in {other.folder}", "run the suite with as many")


def _base_models(name: str, record: Record, other: Record) -> Iterator[Fault]:
    for reward in record.suite.workloads[name].scored:
        ours, theirs = (r.tables[name].by_prompt(BASE, None, reward) for r in (record, other))
        if ours is None or theirs is None:
            continue
        gap = abs(np.mean(ours) - np.mean(theirs))
        if list(ours.index) != list(theirs.index) or gap > TOLERANCE * np.std(theirs):
            where = at(record.folder / name / SCORES)
            what = f"the base model's {reward} is {np.mean(ours):.6g}, not {np.mean(theirs):.6g} as in"
            do = "see that both have the same weights, prompts and versions"
            yield Fault(where, f"{what} {other.folder}", do)
