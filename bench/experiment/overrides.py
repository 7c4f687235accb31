"""What an experiment file, a flag or `--set` says over the defaults."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from bench.base.errors import BenchError, did_you_mean
from bench.base.layers import Layers, Tree, parse_setting

SAMPLER = ("steps", "guidance", "solver")  # `sampler.KEY` is another name of `model.KEY`


class Override(NamedTuple):
    """Settings over the defaults: their origin for messages, section → settings, and if --set says so."""

    origin: str
    tree: Tree
    typed: bool = False


def typed(settings: Iterable[str]) -> list[Override]:
    """What `--set SECTION.KEY=VALUE` says. Raises BenchError for anything else."""
    return [Override(*parse_setting(text), typed=True) for text in settings]


def sampler_as_model(override: Override) -> Override:
    """The override with `sampler.steps` and its like said as `model.steps`."""
    if "sampler" not in override.tree:
        return override
    tree = dict(override.tree)
    sampler = tree.pop("sampler")
    if not isinstance(sampler, dict):
        raise BenchError(f"{override.origin}: sampler: expected a mapping, found {sampler!r}")
    for key in sampler:
        if key not in SAMPLER:
            hint = did_you_mean(str(key), SAMPLER)
            raise BenchError(
                f"{override.origin}: sampler.{key}: unknown key.{hint} Known: {', '.join(SAMPLER)}"
            )
    tree["model"] = {**tree.pop("model", {}), **sampler}
    return override._replace(tree=tree)


def over(layers: Layers, overrides: Iterable[Override], *sections: str, without: str = "") -> Layers:
    """Put what the overrides say about the sections on top of the layers, in their order.

    A section may lie in another (`rlr.train`). without: a key of the sections that is left out. Raises
    BenchError for a section that holds no settings.
    """
    for origin, tree, _ in overrides:
        for section in sections:
            settings: Any = tree
            for key in section.split("."):
                settings = settings.get(key, {})
                if not isinstance(settings, Mapping):
                    raise BenchError(f"{origin}: {section}: expected a mapping, found {settings!r}")
            layers.add(origin, section, {key: value for key, value in settings.items() if key != without})
    return layers


def check_known(overrides: Iterable[Override], known: list[str]) -> None:
    """Raise BenchError for a section that is not known."""
    for origin, tree, _ in overrides:
        for section in tree:
            if section not in known:
                hint = did_you_mean(section, known)
                raise BenchError(f"{origin}: unknown section '{section}'.{hint} Known: {', '.join(known)}")


def check_used(overrides: Iterable[Override], used: Collection[str], what: str) -> None:
    """Raise BenchError for a section that was typed and concerns nothing of `what`.

    A file may carry settings for methods that are left out; what was typed must have a meaning.
    """
    for origin, tree, by_set in overrides:
        for section in tree:
            if by_set and section not in used:
                raise BenchError(f"{origin}: '{section}' is not {what}: {', '.join(used)}")
