"""Command-line options → an experiment: its request, the combinations of it, and where results go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.base import units
from bench.base.errors import BenchError, did_you_mean
from bench.base.layers import Layers, load_config, read_yaml, readable, shipped
from bench.base.reward_names import listed
from bench.experiment.combinations import Combination, combinations
from bench.experiment.files import Request
from bench.experiment.identity import slug
from bench.experiment.model_files import RANDOM
from bench.experiment.overrides import Override, typed

DEMO = "demo"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user typed; None where nothing was typed."""

    methods: str | None = None
    model: str | None = None
    reward: str | None = None
    prompts: str | None = None
    seeds: str | None = None
    steps: int | None = None
    budget: str | None = None
    threads: int | None = None
    config: str | None = None
    settings: Sequence[str] = ()
    out: Path | None = None
    weights: str | None = None
    dcot: bool | None = None


@dataclass(frozen=True)
class Experiment:
    """A checked request, its combinations to resolve into cells, and where to write.

    overrides: what the file, flags and --set say over the defaults, lowest first. target: held-out mean
    reward that counts as reached, of a workload; the report says when it was.
    """

    request: Request
    combinations: list[Combination]
    overrides: list[Override]
    out: Path
    weights: str | None = None
    target: float | None = None

    def over(self, settings: Override) -> Experiment:
        """The same with settings over its file's and below what was typed."""
        place = sum(not override.typed for override in self.overrides)
        parts = [
            replace(part, overrides=_at(part.overrides, settings, sum(not o.typed for o in part.overrides)))
            for part in self.combinations
        ]
        return replace(self, combinations=parts, overrides=list(_at(self.overrides, settings, place)))


def _at(overrides: Sequence[Override], one: Override, place: int) -> tuple[Override, ...]:
    return (*overrides[:place], one, *overrides[place:])


def build(options: Options) -> Experiment:
    """Put flags over the experiment file. Without methods, model, reward and file it is the demo."""
    chosen = (options.methods, options.model, options.reward, options.config)
    name = DEMO if all(choice is None for choice in chosen) else options.config
    merged, origin = Layers(), ""
    flags = _flags(options)
    if name is not None:
        path = _experiment(name)
        origin = readable(path)
        load_config(path, Request)  # so that a mistake is told under the file's own keys
        if not read_yaml(path):
            raise BenchError(
                f"--config {name}: the file says nothing, and the demo would run instead. Write at least one "
                "key, such as `methods: [rlr]`: python -m bench describe experiment"
            )
        merged.add(origin, "", _without(read_yaml(path), [key for _, tree in flags for key in tree]))
    for flag, tree in flags:
        merged.add(flag, "", tree)
    request = merged.build(Request)
    over = typed(options.settings)
    if options.steps is not None:
        limit = {"steps": options.steps, "budget": None}
        over.insert(0, Override(f"--steps {options.steps}", {"train": limit}))
    if options.budget is not None:
        budget = int(options.budget) if options.budget.isdecimal() else options.budget
        over.insert(0, Override(f"--budget {options.budget}", {"train": {"budget": budget}}))
    stand_in = frozenset[str]()
    if options.model is not None and name is not None:
        stand_in = frozenset(k for k in ("reward", "prompts") if getattr(options, k) is None)
    found = combinations(request, origin, over, options.weights, stand_in)
    title = Path(name).stem if name else _title(request, options.weights)
    out = Path("results") / title if options.out is None else options.out
    return Experiment(request, found, [Override(origin, request.settings), *over], out, options.weights)


def _title(request: Request, weights: str | None) -> str:
    """The results directory's name where no experiment file gives one."""
    random = "-random" if weights == RANDOM else ""
    reward = "default" if request.reward is None else slug(request.reward[0])
    return f"{slug(request.model[0])}{random}-{reward}"


def _without(tree: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The file without what flags replace, in its runs too."""
    kept = {key: value for key, value in tree.items() if key not in keys}
    if "runs" in kept:
        kept["runs"] = [{k: v for k, v in run.items() if k not in keys} for run in kept["runs"]]
    return kept


def _experiment(name: str) -> Path:
    known = shipped("experiments")
    if name in known:
        return known[name]
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path.resolve()
    raise BenchError(
        f"--config {name}: neither a YAML file nor a shipped experiment.{did_you_mean(name, list(known))} "
        f"Known: {', '.join(known)}"
    )


def _flags(options: Options) -> list[tuple[str, dict[str, Any]]]:
    """(flag for messages, what it sets) for the flags that were given."""
    found: list[tuple[str, dict[str, Any]]] = []
    if options.methods is not None:
        names = None if options.methods == "all" else units.names(options.methods)
        if names == []:
            raise BenchError("--methods: names no method; `all` takes every one that `bench list` shows")
        found.append(("--methods", {"methods": names}))
    if options.seeds is not None:
        seeds = units.numbers(options.seeds, f"--seeds {options.seeds}")
        found.append(("--seeds", {"seeds": seeds}))
    for key in ("model", "reward", "prompts"):
        value = getattr(options, key)
        if value is not None:
            names = listed(value) if key == "reward" else units.names(value)
            if not names:
                raise BenchError(f"--{key}: names nothing; leave it out for the default, or see `bench list`")
            found.append((f"--{key}", {key: names}))
    for key in ("threads", "dcot"):
        value = getattr(options, key)
        if value is not None:
            found.append((f"--{key}", {key: value}))
    return found
