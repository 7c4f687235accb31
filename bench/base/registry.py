"""Name → class, without importing anything until it is used; outside plugins come in by entry point.

The files in methods/, rewards/ and bench/models/ say themselves what they define (`bench.base.plugin_files`);
one that begins with an underscore, or lies in a folder of its own, holds helpers. A plugin package registers
under the groups `bench.methods`, `bench.rewards` and `bench.models`; the entry's value is "module:Class", for
a model family "module:loader".

A file that cannot be used takes nothing else with it: its entry stands in the list with its `problem`, which
is raised where the name is used.

A preset is a method that is only settings: configs/methods/<name>.yaml with a key `base`, the name of a
method class. It is found and loaded like a method; its settings are in `bench.experiment.method_files`.
"""

import importlib
import importlib.metadata
import importlib.util
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, reduce
from pathlib import Path
from typing import Any, Literal

from bench.base.errors import BenchError, did_you_mean
from bench.base.layers import first_comment, read_yaml, readable, shipped
from bench.base.plugin_files import Contents, contents, declaration
from bench.base.reward_names import registered

Group = Literal["method", "reward", "model"]

FOLDERS: dict[Group, str] = {"method": "methods", "reward": "rewards", "model": "bench.models"}
LOADER = ".load"  # what is called of a model family's class


@dataclass(frozen=True)
class Entry:
    """One registered thing: where it is, and which plugin it comes with (None: this package).

    base, file: of a preset, its method class's name and the YAML file that defines it; None otherwise.
    problem: why it cannot be used, and what to do; None if nothing is known to be wrong.
    """

    group: Group
    name: str
    target: str
    plugin: str | None = None
    base: str | None = None
    file: Path | None = None
    problem: str | None = None

    @property
    def module(self) -> str:
        """Dotted name of the module that defines it."""
        return self.target.partition(":")[0]

    def check(self) -> None:
        """Raises BenchError with the problem, if there is one."""
        if self.problem is not None:
            raise BenchError(f"{self.group} '{self.name}' cannot be used: {self.problem}")

    def load(self) -> Any:
        """The class or loader itself; imports its module. Raises BenchError if that fails."""
        self.check()
        module, _, attributes = self.target.partition(":")
        try:
            return reduce(getattr, attributes.split("."), importlib.import_module(module))
        except Exception as error:  # importing runs the file
            origin = f" of plugin {self.plugin}" if self.plugin else ""
            message = f"{self.group} '{self.name}'{origin}: cannot import {self.target}: {_told(error)}"
            raise BenchError(message) from error

    def contents(self) -> Contents | None:
        """What its module's file says, read without importing it; None if it is not there or not Python."""
        top, *rest = self.module.split(".")
        package = importlib.util.find_spec(top)
        if package is None or package.origin is None:
            return None
        base = Path(package.origin)
        path = base.parent.joinpath(*rest).with_suffix(".py") if rest else base
        if (package.submodule_search_locations is None and rest) or not path.is_file():
            return None
        try:
            return contents(path)
        except SyntaxError:
            return None

    def declared(self, attribute: str) -> Any:
        """The value that its class is written with, read without importing it; None if there is none."""
        found, cls = self.contents(), self.target.partition(":")[2].removesuffix(LOADER)
        return found.classes[cls].get(attribute) if found is not None and cls in found.classes else None

    def docstring(self) -> str | None:
        """The module's docstring, read without importing it; None if the module is not there or has none."""
        found = self.contents()
        return None if found is None else found.docstring

    def summary(self) -> str | None:
        """First line of the docstring; of a preset its base and the comment on the file's first line."""
        if self.problem is not None:
            return f"cannot be used: {self.problem}"
        if self.file is not None:
            return ": ".join(part for part in (self.base, first_comment(self.file)) if part)
        text = self.docstring()
        return None if text is None else text.splitlines()[0]


def _told(error: Exception) -> str:
    """What went wrong while a module was imported, and in which line."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    if last.filename == __file__ or "importlib" in last.filename:
        return str(error)  # the module or the class is not there
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"


def own(group: Group) -> dict[str, Entry]:
    """What the files of this package define, by name. Raises nothing: a faulty file's entry has a problem."""
    found: dict[str, Entry] = {}
    for path in _files(FOLDERS[group]):
        entry = _entry(group, path)
        if entry is not None and entry.name in found:
            first, second = found[entry.name].module, entry.module
            problem = f"{first} and {second} both have the name '{entry.name}'; give one of them another"
            entry = replace(entry, problem=problem)
        if entry is not None:
            found[entry.name] = entry
    return found


def _files(package: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        yield from sorted(path for path in Path(folder).glob("*.py") if not path.name.startswith("_"))


def _entry(group: Group, path: Path) -> Entry | None:
    """What a file defines; None if it need not define anything and does not."""
    module, shown = f"{FOLDERS[group]}.{path.stem}", readable(path)
    found = declaration(path, shown)
    if found is not None:
        target = f"{module}:{found.cls}{LOADER if group == 'model' else ''}"
        return Entry(group, found.name, target, problem=found.problem)
    if group == "model":
        return None  # bench/models/ is more than the families
    problem = f'{shown}: no class in it has a line `name = "…"`. If it holds helpers, begin its name with _'
    return Entry(group, path.stem, module, problem=problem)


@cache
def entries(group: Group) -> dict[str, Entry]:
    """Everything registered in a group, by name: the package's own, plugins, presets."""
    found = own(group)
    for point in importlib.metadata.entry_points(group=f"bench.{group}s"):
        origin = point.dist.name if point.dist else point.value
        if point.name in found:
            raise BenchError(f"plugin {origin} registers {group} '{point.name}', which already exists")
        found[point.name] = Entry(group, point.name, point.value, plugin=origin)
    if group == "method":
        for name, (base, file) in _bases(found).items():
            found[name] = replace(found[base], name=name, base=base, file=file)
    return found


def _bases(classes: dict[str, Entry]) -> dict[str, tuple[str, Path]]:
    """Preset → its base and its file, from configs/methods."""
    files = shipped("methods")
    found: dict[str, tuple[str, Path]] = {}
    for name, path in files.items():
        tree, place, names = read_yaml(path), f"{readable(path)}: base", sorted(classes)
        if "base" not in tree:
            if name not in classes:
                raise BenchError(
                    f"{place}: is missing, and no method class is called '{name}'.{did_you_mean(name, names)}"
                )
            continue
        base = tree["base"]
        if name in classes:
            raise BenchError(f"{place}: '{name}' is a method class; a preset needs a name of its own")
        if not isinstance(base, str):
            raise BenchError(f"{place}: expected the name of a method class, found {base!r}")
        if base not in classes:
            what = "is a preset itself" if base in files else "is no method class"
            raise BenchError(
                f"{place}: '{base}' {what}.{did_you_mean(base, names)} Known: {', '.join(names)}"
            )
        found[name] = (base, path)
    return found


def find(group: Group, name: str) -> Entry:
    """The entry of that name. Raises BenchError with the closest known one, or with what is wrong with it."""
    known = entries(group)
    name = registered(name) if group == "reward" else name
    if name not in known:
        names = sorted(known)
        raise BenchError(f"unknown {group} '{name}'.{did_you_mean(name, names)} Known: {', '.join(names)}")
    known[name].check()
    return known[name]


def load(group: Group, name: str) -> Any:
    """The class (for a model family: the loader) of that name."""
    return find(group, name).load()
