"""What `bench describe` shows of one thing: its documentation, its settings and its file."""

import inspect
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from bench.base import registry
from bench.base.console import plain
from bench.base.errors import BenchError, did_you_mean
from bench.base.layers import Layers, Tree, profiles, read_yaml, readable, shipped
from bench.data import prompts
from bench.data.prompts.dcot import DcotConfig
from bench.experiment.files import Request
from bench.experiment.method_files import blocks
from bench.experiment.settings import EvalConfig, TrainConfig
from bench.models.config import ModelConfig

ANY_MODEL = ""  # has no block of its own in the files of methods
SECTION_MODELS: dict[str, type[BaseModel]] = {
    "train": TrainConfig,
    "eval": EvalConfig,
    "model": ModelConfig,
    "experiment": Request,
    "dcot": DcotConfig,
}


def show(console: Console, name: str) -> None:
    """The documentation and the settings of one method, reward, model, experiment or section."""
    from rich.markdown import Markdown  # takes as long to import as all else here

    for group in ("method", "reward"):
        entries = registry.entries(group)
        if name in entries:
            entry = registry.find(group, name)
            doc = entry.docstring()
            kind = group if entry.base is None else f"preset of {entry.base}"
            console.print(f"[bold]{name}[/bold] ({kind}, {entry.target})\n")
            console.print(Markdown("(no description)" if doc is None else doc))
            _fields(console, entry.load().Config, name, _own(group, name))
            for file in (entry.base, name):
                if file is not None:
                    _files(console, f"{group}s", file)
            return
    if name == "sampler":
        console.print("[bold]sampler[/bold]: how the chain is run; the same as model.steps and so on")
        name = "model"
    if name in SECTION_MODELS:
        console.print(f"[bold]{name}[/bold]: {inspect.getdoc(SECTION_MODELS[name])}", highlight=False)
        _fields(console, SECTION_MODELS[name], name)
        return
    for kind in ("models", "experiments"):
        if name in shipped(kind):
            _files(console, kind, name)
            return
    if name in profiles():
        _file(console, profiles()[name])
        return
    if name in prompts.BUILT_IN:
        _prompt_set(console, name)
        return
    known = [*registry.entries("method"), *registry.entries("reward"), *SECTION_MODELS, *prompts.BUILT_IN]
    known += [*shipped("models"), *shipped("experiments"), *profiles()]
    raise BenchError(f"nothing is called '{name}'.{did_you_mean(name, known)} See: python -m bench list")


def _prompt_set(console: Console, name: str) -> None:
    """What it is, how many, an example of each split; or how to get it."""
    console.print(f"[bold]{name}[/bold] (prompt set): {prompts.BUILT_IN[name]}", highlight=False)
    for source in dict.fromkeys(need.source for need in prompts.needs(name)):
        plain(console, f"from {source}")
    try:
        found = prompts.load(name)
    except BenchError as error:
        plain(console, f"\n{error}")
        return
    for split, texts in (("to train on", found.train), ("held out", found.eval)):
        text = f"{len(texts)} {split}, such as {texts[0]!r}"
        plain(console, text, wrap=True)


def _own(group: str, name: str) -> Tree:
    """What the settings files say on any model, a preset's over its base's: it stands over the defaults."""
    if group == "reward":
        return read_yaml(shipped("rewards")[name]) if name in shipped("rewards") else {}
    layers = Layers()
    for block in blocks(name, ANY_MODEL):
        layers.add(block.file, "", block.settings.method or {})
    return layers.tree


def _fields(console: Console, model: type[BaseModel], section: str, own: Tree | None = None) -> None:
    title = "keys of the file" if section == "experiment" else f"settings (--set {section}.KEY=VALUE)"
    table = Table(title=title, title_justify="left", title_style="bold")
    for header in ("key", "type", "default", "meaning"):
        table.add_column(header, overflow="fold")
    for key, kind, default, meaning in _rows(model, "", own or {}):
        table.add_row(key, kind, default, meaning)
    console.print()
    console.print(table, markup=False)


_SIGNS = (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))


def _rows(model: type[BaseModel], prefix: str, own: Tree) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    for key, field in model.model_fields.items():
        annotation: Any = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            rows += _rows(annotation, f"{prefix}{key}.", own.get(key) or {})
            continue
        kind = _plain(annotation)
        default = "(required)" if field.is_required() else str(field.get_default(call_default_factory=True))
        default = str(own[key]) if key in own else default
        checks = [*field.metadata, *_checks(annotation)]
        limits = [f"{sign} {getattr(m, name)}" for m in checks for name, sign in _SIGNS if hasattr(m, name)]
        meaning = " · ".join(part for part in (field.description, ", ".join(limits)) if part)
        rows.append((prefix + key, kind, default, meaning))
    return rows


def _checks(annotation: Any) -> list[Any]:
    """Those that hang on the members of a union."""
    members = [kind for kind in get_args(annotation) if get_origin(kind) is Annotated]
    return [
        check for kind in members for info in get_args(kind)[1:] for check in getattr(info, "metadata", ())
    ]


def _plain(annotation: Any) -> str:
    """A type for people: without the checks that hang on it."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join("None" if kind is NoneType else _plain(kind) for kind in get_args(annotation))
    if get_origin(annotation) is Literal:
        return " | ".join(map(repr, get_args(annotation)))
    if get_origin(annotation) is tuple:
        inner = ["…" if kind is Ellipsis else _plain(kind) for kind in get_args(annotation)]
        return f"list[{inner[0]}]" if inner[1:] == ["…"] else f"[{', '.join(inner)}]"
    return str(annotation).replace("typing.", "").replace("pathlib.", "")


def _files(console: Console, kind: str, name: str) -> None:
    if name in shipped(kind):
        _file(console, shipped(kind)[name])


def _file(console: Console, path: Path) -> None:
    console.print(f"\n[bold]{readable(path)}[/bold]")
    plain(console, path.read_text(encoding="utf-8"), wrap=True)
