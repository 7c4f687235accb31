"""Modules under the names that they had before the rooms, for one release: `bench.chain` and others.

A module of an old name is made when it is imported, with a DeprecationWarning that says where its names are
now. Plugins and scripts written against the old names run as before.
"""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {  # old name in bench/ → the modules in bench/ that have what was in it
    "advantages": "engine.advantages",
    "chain": "engine.chain engine.plan",
    "chunks": "engine.chunks",
    "config": "base.layers",
    "download": "data.url data.cache",
    "errors": "base.errors",
    "half_order": "engine.likelihood_ratio engine.control_variate",
    "hub": "data.hub",
    "joint": "engine.kept_graphs engine.batch",
    "media": "base.media",
    "method": "engine.method engine.batch",
    "models.embedded.motion": "data.prompts.emoji_motion",
    "models.embedded.prompts": "data.prompts.emoji",
    "parallel": "engine.world",
    "plan_method": "engine.plan_method",
    "pullback": "engine.pullback",
    "registry": "base.registry",
    "reward": "engine.reward",
    "rollout": "engine.rollout engine.batch",
    "schema": "base.strict",
    "solvers": "models.solvers engine.chain",
    "stages": "engine.stages",
    "store": "run.store base.files",
    "streams": "engine.random_streams",
    "terms": "engine.terms",
    "weights": "data.sources data.need data.advice",
}
PACKAGES = {
    "analysis": "report",
    "profile": "measure.cost",
    "prompts": "data.prompts",
    "vbench": "measure.vbench",
}


class OldNames:
    """Finds what nothing else finds; `bench/__init__.py` puts it last among the finders of imports."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module of an old name, as importlib asks for it; None for any other."""
        if not _now(name):
            return None
        package = name.removeprefix("bench.") in PACKAGES
        return ModuleSpec(name, self, is_package=package)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """An ordinary module will do."""

    def exec_module(self, module: ModuleType) -> None:
        """Its names are looked up where they are now."""
        places = [importlib.import_module(place) for place in _now(module.__name__)]

        def lookup(name: str) -> Any:
            for place in places:
                if hasattr(place, name):
                    return getattr(place, name)
            raise AttributeError(f"module '{module.__name__}' has no attribute '{name}'")

        vars(module)["__getattr__"] = lookup
        now = " and ".join(place.__name__ for place in places)
        warnings.warn(f"{module.__name__} is now {now}", DeprecationWarning, stacklevel=2)


def _now(name: str) -> list[str]:
    """The modules that have what was in a module of that name; none if it is no old name."""
    top, _, old = name.partition(".")
    package, dot, rest = old.partition(".")
    if top != "bench":
        return []
    if old in MOVED:
        return [f"bench.{place}" for place in MOVED[old].split()]
    return [f"bench.{PACKAGES[package]}{dot}{rest}"] if package in PACKAGES else []


def install() -> None:
    """Let the old names be imported."""
    if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
        sys.meta_path.append(OldNames())  # type: ignore[arg-type]
