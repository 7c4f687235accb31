"""What `bench describe` shows of one thing: its documentation, its settings and its file."""

import inspect
from dataclasses import asdict, dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

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


@dataclass(frozen=True)
class Setting:
    """A key, its type, what it is without being set (required: `(required)`), its meaning and range."""

    key: str
    type: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Description:
    """One thing. section: what `--set` calls its settings; empty if it has none of its own. files: that say
    more, with what is in them."""

    name: str
    kind: str
    documentation: str = ""
    section: str = ""
    settings: tuple[Setting, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    target: str = ""


def describe(name: str) -> Description:
    """One method, reward, section, model, experiment, workload, SLURM profile or prompt set. Raises
    BenchError if nothing is called so."""
    groups: tuple[registry.Group, ...] = ("method", "reward")
    for group in groups:
        if name in registry.entries(group):
            return _plugin(group, name)
    section = "model" if name == "sampler" else name
    if section in SECTION_MODELS:
        model = SECTION_MODELS[section]
        text = "how the chain is run; the same as model.steps and so on" if section != name else ""
        rows = tuple(_rows(model, "", {}))
        return Description(name, "section", text or inspect.getdoc(model) or "", section, rows)
    for kind in ("models", "experiments", "workloads"):
        if name in shipped(kind):
            return Description(name, kind.removesuffix("s"), files=_files(shipped(kind)[name]))
    if name in profiles():
        return Description(name, "SLURM profile", files=_files(profiles()[name]))
    if name in prompts.BUILT_IN:
        return Description(name, "prompt set", _prompt_set(name))
    known = [*registry.entries("method"), *registry.entries("reward"), *SECTION_MODELS, *prompts.BUILT_IN]
    known += [n for kind in ("models", "experiments", "workloads") for n in shipped(kind)] + [*profiles()]
    raise BenchError(f"nothing is called '{name}'.{did_you_mean(name, known)} See: python -m bench list")


def as_object(found: Description) -> dict[str, Any]:
    """The description for `--json`."""
    files = [{"file": file, "text": text} for file, text in found.files]
    return {**asdict(found), "files": files}


def _plugin(group: registry.Group, name: str) -> Description:
    entry = registry.find(group, name)
    kind = group if entry.base is None else f"preset of {entry.base}"
    doc = entry.docstring()
    rows = tuple(_rows(entry.load().Config, "", _own(group, name)))
    shipping = shipped(f"{group}s")
    files = [one for file in (entry.base, name) if file in shipping for one in _files(shipping[file])]
    text = "(no description)" if doc is None else doc
    return Description(name, kind, text, name, rows, tuple(files), entry.target)


def _files(path: Path) -> tuple[tuple[str, str], ...]:
    return ((readable(path), path.read_text(encoding="utf-8")),)


def show(console: Console, name: str) -> None:
    """Print the description of one thing."""
    found = describe(name)
    if found.target:
        from rich.markdown import Markdown  # takes as long to import as all else here

        console.print(f"[bold]{name}[/bold] ({found.kind}, {found.target})\n")
        console.print(Markdown(found.documentation))
    elif found.documentation:
        kind = "" if found.kind == "section" else f" ({found.kind})"
        first, _, rest = found.documentation.partition("\n")
        console.print(f"[bold]{name}[/bold]{kind}: ", Text(first), sep="", highlight=False)
        if rest:
            plain(console, rest, wrap=found.kind == "section")  # else commands are in it, to be copied
    if found.settings:
        _settings(console, found)
    for file, text in found.files:
        console.print(f"\n[bold]{file}[/bold]")
        plain(console, text, wrap=True)


def _prompt_set(name: str) -> str:
    """What it is, how many, an example of each split; or how to get it."""
    lines = [prompts.BUILT_IN[name]]
    lines += [f"from {source}" for source in dict.fromkeys(need.source for need in prompts.needs(name))]
    try:
        found = prompts.load(name)
    except BenchError as error:
        return "\n".join([*lines, "", str(error)])
    for split, texts in (("to train on", found.train), ("held out", found.eval)):
        lines.append(f"{len(texts)} {split}, such as {texts[0]!r}")
    return "\n".join(lines)


def _own(group: str, name: str) -> Tree:
    """What the settings files say on any model, a preset's over its base's: it stands over the defaults."""
    if group == "reward":
        return read_yaml(shipped("rewards")[name]) if name in shipped("rewards") else {}
    layers = Layers()
    for block in blocks(name, ANY_MODEL):
        layers.add(block.file, "", block.settings.method or {})
    return layers.tree


def _settings(console: Console, found: Description) -> None:
    title = f"settings (--set {found.section}.KEY=VALUE)"
    table = Table(
        title="keys of the file" if found.section == "experiment" else title,
        title_justify="left",
        title_style="bold",
    )
    for header in ("key", "type", "default", "meaning"):
        table.add_column(header, overflow="fold")
    for row in found.settings:
        table.add_row(*map(Text, (row.key, row.type, row.default, row.meaning)))
    console.print()
    console.print(table)


_SIGNS = (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))


def _rows(model: type[BaseModel], prefix: str, own: Tree) -> list[Setting]:
    rows: list[Setting] = []
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
        rows.append(Setting(prefix + key, kind, default, meaning))
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
