"""Name → class, without importing anything until it is used; outside plugins come in by entry point.

A plugin package registers under the groups `bench.methods`, `bench.rewards` and `bench.models`; the entry's
value is what the tables below hold: "module:Class" (for a model family "module:loader").

A preset is a method that is only settings: configs/methods/<name>.yaml with a key `base`, the name of a
method class. It is found and loaded like a method; its settings are in `bench.experiment.method_files`.
"""

import ast
import importlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bench.base.errors import BenchError, did_you_mean
from bench.base.layers import first_comment, read_yaml, readable, shipped
from bench.base.reward_names import registered

Group = Literal["method", "reward", "model"]

BUILT_IN: dict[Group, dict[str, str]] = {
    "method": {
        "rlr": "methods.rlr:Rlr",
        "ddpo": "methods.ddpo:Ddpo",
        "alignprop": "methods.alignprop:AlignProp",
        "vader": "methods.vader:Vader",
        "zo": "methods.zo:Zo",
        "truncated_bp": "methods.truncated_bp:TruncatedBp",
        "full_bp": "methods.full_bp:FullBp",
        "refl": "methods.refl:Refl",
        "truncated-bp-weighted": "methods.truncated_bp_weighted:TruncatedBpWeighted",
        "reinforce": "methods.reinforce:Reinforce",
        "doodl": "methods.doodl:Doodl",
        "rlr-authors-code": "methods.rlr_authors_code:RlrAuthorsCode",
    },
    "reward": {
        "clip": "rewards.clip:ClipReward",
        "hpsv2": "rewards.hpsv2:Hpsv2Reward",
        "imagereward": "rewards.imagereward:ImageRewardReward",
        "pickscore": "rewards.pickscore:PickScoreReward",
        "aes": "rewards.aes:AesReward",
        "clipscore": "rewards.clipscore:ClipScoreReward",
        "jpeg": "rewards.jpeg:JpegReward",
        "colourfulness": "rewards.colourfulness:ColourfulnessReward",
        "action": "rewards.action:ActionReward",
        "objects": "rewards.objects:ObjectsReward",
        "motion": "rewards.motion:MotionReward",
        "xclip": "rewards.xclip:XclipReward",
        "weighted": "rewards.weighted_sum:WeightedReward",
        "python": "rewards.python_function:PythonReward",
    },
    "model": {
        "image": "bench.models.image:load_image_chain",
        "video": "bench.models.video:load_video_chain",
    },
}


@dataclass(frozen=True)
class Entry:
    """One registered thing: where it is, and which plugin it comes with (None: this package).

    base, file: of a preset, its method class's name and the YAML file that defines it; None otherwise.
    """

    group: Group
    name: str
    target: str
    plugin: str | None = None
    base: str | None = None
    file: Path | None = None

    @property
    def module(self) -> str:
        """Dotted name of the module that defines it."""
        return self.target.partition(":")[0]

    def load(self) -> Any:
        """The class or loader itself; imports its module."""
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            origin = f" of plugin {self.plugin}" if self.plugin else ""
            message = f"{self.group} '{self.name}'{origin}: cannot import {self.target}: {error}"
            raise BenchError(message) from error

    def source(self) -> ast.Module | None:
        """The module's syntax tree, read without importing it; None if it is not there."""
        top, *rest = self.module.split(".")
        package = importlib.util.find_spec(top)
        if package is None or package.origin is None:
            return None
        base = Path(package.origin)
        path = base.parent.joinpath(*rest).with_suffix(".py") if rest else base
        if package.submodule_search_locations is None and rest:
            return None
        return ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else None

    def docstring(self) -> str | None:
        """The module's docstring, read without importing it; None if the module is not there or has none."""
        tree = self.source()
        return None if tree is None else ast.get_docstring(tree)

    def summary(self) -> str | None:
        """First line of the docstring; of a preset its base and the comment on the file's first line."""
        if self.file is not None:
            return ": ".join(part for part in (self.base, first_comment(self.file)) if part)
        text = self.docstring()
        return None if text is None else text.splitlines()[0]


@cache
def entries(group: Group) -> dict[str, Entry]:
    """Everything registered in a group, by name: the package's own, plugins, presets."""
    found = {name: Entry(group, name, target) for name, target in BUILT_IN[group].items()}
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
    """The entry of that name. Raises BenchError with the closest known one."""
    known = entries(group)
    name = registered(name) if group == "reward" else name
    if name not in known:
        names = sorted(known)
        raise BenchError(f"unknown {group} '{name}'.{did_you_mean(name, names)} Known: {', '.join(names)}")
    return known[name]


def load(group: Group, name: str) -> Any:
    """The class (for a model family: the loader) of that name."""
    return find(group, name).load()
