"""Command-line options → a request, the layers of settings over it, and where results go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cells import Layer
from bench.config import Layers, load_config, parse_setting, read_yaml, readable, shipped
from bench.errors import BenchError, did_you_mean
from bench.settings import Request

DEMO = "demo"


@dataclass(frozen=True)
class Options:
    """What the user typed; None where nothing was typed."""

    methods: str | None = None
    model: str | None = None
    reward: str | None = None
    prompts: str | None = None
    seeds: str | None = None
    steps: int | None = None
    threads: int | None = None
    config: str | None = None
    settings: Sequence[str] = ()
    out: Path | None = None


@dataclass(frozen=True)
class Experiment:
    """A validated request: what to resolve into cells, and where to write."""

    request: Request
    layers: list[Layer]
    out: Path


def build(options: Options) -> Experiment:
    """Put flags over the experiment file. Without methods, model, reward and file it is the demo."""
    chosen = (options.methods, options.model, options.reward, options.config)
    name = DEMO if all(choice is None for choice in chosen) else options.config
    merged, layers = Layers(), list[Layer]()
    if name is not None:
        path = _experiment(name)
        merged.add(readable(path), "", read_yaml(path))
        layers.append(Layer(readable(path), load_config(path, Request).settings))
    for flag, tree in _flags(options):
        merged.add(flag, "", tree)
    request = merged.build(Request)
    if options.steps is not None:
        layers.append(Layer(f"--steps {options.steps}", {"train": {"steps": options.steps}}))
    layers += [Layer(*parse_setting(text), typed=True) for text in options.settings]
    title = Path(name).stem if name else f"{Path(request.model).name}-{request.reward or 'default'}"
    out = Path("results") / title if options.out is None else options.out
    return Experiment(request, layers, out)


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
        names = None if options.methods == "all" else _split(options.methods)
        found.append(("--methods", {"methods": names}))
    if options.seeds is not None:
        found.append(("--seeds", {"seeds": _split(options.seeds)}))
    for key in ("model", "reward", "prompts", "threads"):
        value = getattr(options, key)
        if value is not None:
            found.append((f"--{key}", {key: value}))
    return found


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
