"""Command-line options → a request, its parts with the layers of settings over them, and where results go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config import Layers, load_config, parse_setting, read_yaml, readable, shipped
from bench.errors import BenchError, did_you_mean
from bench.parts import Layer, Part, parts
from bench.reward_names import terms
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
    weights: str | None = None
    dcot: bool | None = None


@dataclass(frozen=True)
class Experiment:
    """A validated request: its parts to resolve into cells, what was typed over it, and where to write."""

    request: Request
    parts: list[Part]
    layers: list[Layer]
    out: Path


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
        merged.add(origin, "", _without(read_yaml(path), [key for _, tree in flags for key in tree]))
    for flag, tree in flags:
        merged.add(flag, "", tree)
    request = merged.build(Request)
    layers = list[Layer]()
    if options.steps is not None:
        layers.append(Layer(f"--steps {options.steps}", {"train": {"steps": options.steps}}))
    layers += [Layer(*parse_setting(text), typed=True) for text in options.settings]
    stand_in = frozenset[str]()
    if options.model is not None and name is not None:
        stand_in = frozenset(k for k in ("reward", "prompts") if getattr(options, k) is None)
    found = parts(request, origin, layers, options.weights, stand_in)
    title = Path(name).stem if name else f"{Path(request.model[0]).name}-{(request.reward or ['default'])[0]}"
    out = Path("results") / title if options.out is None else options.out
    return Experiment(request, found, [Layer(origin, request.settings), *layers], out)


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
        names = None if options.methods == "all" else _split(options.methods)
        found.append(("--methods", {"methods": names}))
    if options.seeds is not None:
        found.append(("--seeds", {"seeds": _split(options.seeds)}))
    for key in ("model", "reward", "prompts"):
        value = getattr(options, key)
        if value is not None:
            found.append((f"--{key}", {key: _names(value)}))
    for key in ("threads", "dcot"):
        value = getattr(options, key)
        if value is not None:
            found.append((f"--{key}", {key: value}))
    return found


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _names(text: str) -> list[str]:
    """Names with commas between them; a sum of rewards (hpsv2:1,aes:0.5) is one name."""
    return [text] if terms(text) else _split(text)
