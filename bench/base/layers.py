"""The only reader of YAML, and the layers of settings: each knows where every value came from.

Strict: an unknown or a repeated key is an error that names the file, the key and the closest known one.
"""

import re
from collections.abc import Hashable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

import bench
from bench.base.errors import BenchError, did_you_mean
from bench.base.strict import Strict

Model = TypeVar("Model", bound=Strict)
Tree = dict[str, Any]

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_NULL = re.compile(r"~|null|Null|NULL|")
_TAKEN_OTHERWISE = re.compile(r"[\t?>!]")  # signs that libyaml takes in places where PyYAML refuses them


class _Yaml12(SafeConstructor, Resolver):
    """PyYAML with the scalars of YAML 1.2's core schema: 1e-4 is a number; yes, on and 10:30 are text."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  (the base class's own form)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that the reader above would take for something else."""

    yaml_implicit_resolvers = _Yaml12.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        """Repeat equal values instead of naming them."""
        return True


def _int(loader: Any, node: yaml.ScalarNode) -> int:
    return int(node.value)


def _float(loader: Any, node: yaml.ScalarNode) -> float:
    return float(re.sub(r"\.(inf|nan)", r"\1", node.value.lower()))


def _mapping(loader: Any, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.MarkedYAMLError(problem=f"key '{key}' appears twice", problem_mark=key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


for _tag, _pattern in (("null", _NULL), ("bool", _BOOL), ("int", _INT), ("float", _FLOAT)):
    _whole = re.compile(f"(?:{_pattern.pattern})$")
    _Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _whole, None)  # type: ignore[arg-type]
_Yaml12.add_constructor("tag:yaml.org,2002:int", _int)
_Yaml12.add_constructor("tag:yaml.org,2002:float", _float)
_Yaml12.add_constructor("tag:yaml.org,2002:map", _mapping)


class _Loader(_Yaml12, yaml.SafeLoader):
    """With PyYAML's own parser."""


if yaml.__with_libyaml__:

    class _Libyaml(_Yaml12, yaml.CSafeLoader):
        """With libyaml's parser, which takes an eighth of the time."""


def _value(text: str) -> Any:
    """Raises yaml.YAMLError, always of PyYAML's own parser, whose messages say more than libyaml's."""
    if yaml.__with_libyaml__ and not _TAKEN_OTHERWISE.search(text):
        with suppress(yaml.YAMLError):
            return yaml.load(text, Loader=_Libyaml)
    return yaml.load(text, Loader=_Loader)


def parse_yaml(text: str, origin: str) -> Any:
    """The value of a YAML text; origin names it in messages."""
    try:
        return _value(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise BenchError(f"{origin}{place}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise BenchError(f"{origin}: {error}") from error


def read_yaml(path: Path) -> Tree:
    """A YAML file that holds a mapping (an empty file is an empty one)."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: cannot be read: {error}") from error
    tree = parse_yaml(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise BenchError(f"{path}: expected a mapping at the top, found {type(tree).__name__}")
    return tree


def first_comment(path: Path) -> str | None:
    """The comment on the first line of a YAML file; None if it starts otherwise."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else None


def write_yaml(value: BaseModel) -> str:
    """A settings object as YAML text."""
    return dump_yaml(value.model_dump(mode="json"))


def dump_yaml(tree: Tree) -> str:
    """Plain values as YAML text."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def shipped_dir(name: str) -> Path:
    """The shipped folder of that name: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(bench.__file__).parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def config_dir() -> Path:
    """The folder of the shipped settings, configs/."""
    return shipped_dir("configs")


def shipped(kind: str) -> dict[str, Path]:
    """Name → file of configs/<kind>/."""
    return _by_name(config_dir() / kind)


def profiles() -> dict[str, Path]:
    """Name → file of the SLURM profiles that ship."""
    return _by_name(shipped_dir("slurm") / "profiles")


def _by_name(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def readable(path: Path) -> str:
    """The path for messages: relative to the shipped configs' parent where it lies below it."""
    parent = config_dir().parent
    return str(path.relative_to(parent)) if path.is_relative_to(parent) else str(path)


class Layers:
    """One section's settings, later layers over earlier ones; remembers where every value came from."""

    def __init__(self) -> None:
        self.tree: Tree = {}
        self._origins: dict[tuple[str, ...], tuple[str, str]] = {}

    def add(self, origin: str, section: str, tree: Mapping[str, Any]) -> "Layers":
        """Put a layer on top; nested mappings merge, everything else replaces.

        origin: the file or flag; section: the dotted key of `tree` in it. Both only appear in messages.
        """
        self._merge(self.tree, tree, (), (origin, section))
        return self

    def _merge(
        self, into: Tree, tree: Mapping[str, Any], at: tuple[str, ...], origin: tuple[str, str]
    ) -> None:
        for key, value in tree.items():
            place = (*at, str(key))
            self._origins[place] = origin
            if isinstance(value, Mapping):
                below = into[key] if key in into and isinstance(into[key], dict) else {}
                into[key] = below
                self._merge(below, value, place, origin)
            else:
                into[key] = value

    def build(self, model: type[Model], section: str = "") -> Model:
        """The validated settings. Raises BenchError with one line per mistake.

        section: what a key that stands in no layer is called by.
        """
        try:
            return model.model_validate(self.tree)
        except ValidationError as error:
            found: dict[tuple[str, str], list[str]] = {}
            for one in error.errors():
                where, message, got = self._explain(one, model, section)
                found.setdefault((where, got), []).append(message)
            lines = [f"{where}: {', or '.join(said)}{got}" for (where, got), said in found.items()]
            raise BenchError("\n".join(lines)) from error

    def _explain(self, error: ErrorDetails, model: type[Strict], otherwise: str) -> tuple[str, str, str]:
        """Where the mistake is, what is wrong, and what was given."""
        place = tuple(str(part) for part in error["loc"])
        if not isinstance(error["input"], Mapping):  # behind a value pydantic names the kind that it tried
            place = next((place[:n] for n in range(len(place), 0, -1) if place[:n] in self._origins), place)
        above = (place[:n] for n in range(len(place), 0, -1))
        origin, section = next((self._origins[p] for p in above if p in self._origins), ("", otherwise))
        key = ".".join(part for part in (section, *place) if part)
        where = f"{origin}: {key}" if origin and key else origin or key
        if error["type"] == "extra_forbidden":
            known = _fields(model, place[:-1])
            hint = did_you_mean(place[-1], known) or f" Known: {', '.join(known) if known else 'none'}"
            return where, f"unknown key.{hint}", ""
        if error["type"] == "missing":
            field = model.model_fields[place[0]] if len(place) == 1 else None
            means = f" ({field.description})" if field and field.description else ""
            return where, f"is missing{means}", ""
        message = error["msg"].removeprefix("Value error, ")
        got = "" if isinstance(error["input"], Mapping) else f" (got {error['input']!r})"
        if not place:
            where = ", ".join(dict.fromkeys(o for o, _ in self._origins.values() if o))
        return where, f"{message[:1].lower()}{message[1:]}", got


def _fields(model: type[BaseModel], place: tuple[str, ...]) -> list[str]:
    """Names of the fields of the (nested) model at a place; empty where there is no model."""
    for part in place:
        if part.isdigit():
            continue  # a place in a list of models
        inner = model.model_fields[part].annotation if part in model.model_fields else None
        found = [kind for kind in (inner, *get_args(inner)) if isinstance(kind, type)]
        models = [kind for kind in found if issubclass(kind, BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)


def load_config(path: Path, model: type[Model]) -> Model:
    """A whole YAML file as a settings object."""
    return Layers().add(readable(path), "", read_yaml(path)).build(model)


def parse_setting(text: str) -> tuple[str, Tree]:
    """`a.b.c=value` as (its origin for messages, {a: {b: {c: value}}}); the value is YAML."""
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or len(parts) < 2 or not all(parts):
        raise BenchError(f"--set {text}: expected SECTION.KEY=VALUE, such as rlr.h=3 or train.lr=1e-3")
    origin = f"--set {text}"
    tree: Any = parse_yaml(value, origin)
    for part in reversed(parts):
        tree = {part: tree}
    return origin, tree
