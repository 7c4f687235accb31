"""Made-up records for tests: numbers drawn at random, in the form that a suite writes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bench.base.layers import Tree, dump_yaml, read_yaml
from bench.experiment.search import draws, space
from bench.protocol.reading import CHOSEN, CURVES, RUNS, SCORES, SUITE, TRIALS, column
from bench.protocol.tune import FIRST_SEED
from bench.protocol.workload import Slice, Workload
from bench.report.groups import NULL

ENVIRONMENT = {
    "bench": "0.1.0",
    "commit": "0123abcd",
    "python": "3.11.9",
    "torch": "2.13.0",
    "diffusers": "0.42.0",
    "peft": "0.17.0",
    "device": "cpu",
}
EVALUATIONS = 4

Row = dict[str, Any]


def a_workload(**changes: Any) -> Workload:
    """A workload with six held-out prompts and a target."""
    content: Tree = {
        "model": "tiny",
        "reward": "clip",
        "prompts": "emoji",
        "budget": 6000,
        "target": 0.7,
        "reported": Slice(skip=0, prompts=6),
        "tuning": Slice(skip=6, prompts=6),
        "untouched": ("colourfulness", "jpeg"),
        **changes,
    }
    return Workload(**content)


@dataclass
class Made:
    """What is made up of a method.

    gain: by reward, at the budget; reached in a straight line. of_run, of_score: standard deviations between
    runs, and of single scores. missed: seeds whose run fails. sits_out: workloads.
    """

    gain: dict[str, float]
    of_run: float = 0.002
    of_score: float = 0.002
    missed: Sequence[int] = ()
    sits_out: Sequence[str] = ()


@dataclass
class Maker:
    """Writes a record."""

    workloads: dict[str, Workload]
    methods: dict[str, Made]
    trials: int = 2
    studies: int = 2
    seeds: int = 4
    noise: int = 0  # seed of the random numbers
    base: dict[str, float] = field(
        default_factory=lambda: {
            "clip": 0.6, "colourfulness": 40.0, "jpeg": -5.0, "diversity": 0.2, "distance": 0.0
        }
    )  # fmt: skip

    def write(self, folder: Path) -> Path:
        """The whole record; returns its folder."""
        out = {n: [m for m, made in self.methods.items() if n in made.sits_out] for n in self.workloads}
        suite = {
            "format": 1,
            "methods": list(self.methods),
            "trials": self.trials,
            "studies": self.studies,
            "seeds": self.seeds,
            "workloads": {name: one.model_dump(mode="json") for name, one in self.workloads.items()},
            "sits_out": {name: some for name, some in out.items() if some},
            "environment": ENVIRONMENT,
            "search": {
                method: {key: law.model_dump(mode="json", exclude_none=True) for key, law in laws.items()}
                for method in self.methods
                if (laws := space(method))
            },
        }
        folder.mkdir(parents=True)
        (folder / SUITE).write_text(dump_yaml(suite))
        for number, (name, workload) in enumerate(self.workloads.items()):
            methods = [method for method in self.methods if method not in out[name]]
            self._tables(folder / name, workload, methods, np.random.default_rng([self.noise, number]))
        return folder

    def _tables(self, folder: Path, load: Workload, methods: list[str], rng: np.random.Generator) -> None:
        folder.mkdir()
        trials, chosen = self._tuning(methods, rng)
        table(folder / TRIALS, trials)
        content = {"workload": folder.name, "reward": load.reward, "methods": chosen}
        (folder / CHOSEN).write_text(dump_yaml(content))
        prompts = [f"prompt {n}" for n in range(load.reported.prompts)]
        rewards = [*load.scored, "distance"]
        hard = {r: self.base[r] + 0.05 * np.random.default_rng(n).standard_normal(len(prompts))
                for n, r in enumerate(rewards)}  # fmt: skip
        runs: list[Row] = [_run("base", None, None, "done", "", 0, 0, load)]
        scores = {
            r: [_score(p, r, "base", x) for p, x in zip(prompts, hard[r], strict=True)] for r in rewards
        }
        curves: list[Row] = []
        for method in methods:
            made = self.methods[method]
            for seed in range(self.seeds):
                study = seed % self.studies
                choice = next((c for c in chosen[method] if c["study"] == study), None)
                state = "missed" if choice is None else "failed" if seed in made.missed else "done"
                settings = "" if choice is None else json.dumps(choice["settings"])
                runs.append(_run(method, study, seed, state, settings, 12, 5900, load))
                if state != "done":
                    continue
                for reward in rewards:
                    rise = made.gain.get(reward, 0.0) + made.of_run * rng.standard_normal()
                    last = hard[reward] + rise + made.of_score * rng.standard_normal(len(prompts))
                    for row, score in zip(scores[reward], last, strict=True):
                        row[column(method, seed)] = f"{score:.6g}"
                    first, end = float(np.mean(hard[reward])), float(np.mean(last))
                    for part in (n / EVALUATIONS for n in range(1, EVALUATIONS + 1)):
                        mean = first + part * (end - first)
                        curves.append(_point(method, study, seed, int(12 * part), 5900 * part, reward, mean))
        table(folder / RUNS, runs)
        table(folder / SCORES, [row for rows in scores.values() for row in rows])
        table(folder / CURVES, curves)

    def _tuning(self, methods: list[str], rng: np.random.Generator) -> tuple[list[Row], dict[str, list[Row]]]:
        trials: list[Row] = []
        chosen: dict[str, list[Row]] = {}
        for method in methods:
            chosen[method] = []
            for study in range(self.studies):
                found = [
                    _trial(method, study, n, settings, float(f"{0.6 + 0.05 * rng.standard_normal():.6g}"))
                    for n, settings in enumerate(draws(method, self.trials, study))
                ]
                trials += found
                chosen[method].append(max(found, key=lambda row: row["score"]))
        return [{**row, "settings": json.dumps(row["settings"])} for row in trials], chosen


def _trial(method: str, study: int, number: int, settings: Tree, score: float) -> Row:
    cell = f"{method}-s{FIRST_SEED + study}-{number}"
    return {
        "method": method, "study": study, "trial": number, "seed": FIRST_SEED + study, "settings": settings,
        "cell": cell, "state": "done", "score": score,
    }  # fmt: skip


def _run(
    method: str,
    study: int | None,
    seed: int | None,
    state: str,
    settings: str,
    steps: int,
    spent: float,
    load: Workload,
) -> Row:
    return {
        "method": method, "study": study, "seed": seed, "state": state, "cell": f"{method}-{seed}",
        "settings": settings, "steps": steps, "samples": 8 * steps, "forwards": spent, "again": 0,
        "seconds": spent / 100, "memory": 1.5e9,
    }  # fmt: skip


def _score(prompt: str, reward: str, run: str, score: float) -> Row:
    return {"prompt": prompt, "reward": reward, run: f"{score:.6g}"}


def _point(method: str, study: int, seed: int, step: int, spent: float, reward: str, score: float) -> Row:
    return {
        "method": method, "study": study, "seed": seed, "step": step, "forwards": f"{spent:.6g}",
        "seconds": f"{spent / 100:.6g}", "reward": reward, "score": f"{score:.6g}",
    }  # fmt: skip


def table(path: Path, rows: Sequence[Row]) -> None:
    """Write a table."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def change(path: Path, edit: Callable[[list[Row]], object]) -> None:
    """Edit the lines of a table, as texts."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows: list[Row] = list(csv.DictReader(stream))
    edit(rows)
    table(path, rows)


def unscored(folder: Path, method: str, *seeds: int) -> None:
    """Take runs out of a workload's curves and scores."""

    def lines(rows: list[Row]) -> None:
        rows[:] = [r for r in rows if r["method"] != method or int(r["seed"]) not in seeds]

    def columns(rows: list[Row]) -> None:
        for row, seed in product(rows, seeds):
            row.pop(column(method, seed), None)

    change(folder / CURVES, lines)
    change(folder / SCORES, columns)


def change_yaml(path: Path, edit: Callable[[Tree], object]) -> None:
    """Edit a YAML file's tree."""
    tree = read_yaml(path)
    edit(tree)
    path.write_text(dump_yaml(tree))


WORKLOADS = {
    "easy": a_workload(),
    "hard": a_workload(target=0.9),
    "no-gradient": a_workload(reward="jpeg", target=-4.9, untouched=("clip", "colourfulness")),
}


def maker(**changes: Any) -> Maker:
    """A record of three methods on three workloads."""
    methods = {
        "truncated_bp": Made(
            {"clip": 0.2, "colourfulness": -0.2, "jpeg": -0.3, "diversity": -0.15, "distance": 0.3},
            sits_out=("no-gradient",),
        ),
        "ddpo": Made({"clip": 0.05, "jpeg": 0.2, "distance": 0.05}, missed=(1,)),
        NULL: Made({"distance": 0.02}),
    }
    return Maker(**{"workloads": WORKLOADS, "methods": methods, **changes})


def of(rows: list[Row], **wanted: object) -> Row:
    """The first line with these texts."""
    return next(row for row in rows if all(row[key] == str(value) for key, value in wanted.items()))
