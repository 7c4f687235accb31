"""What can be named: `bench.methods`, `bench.rewards`, `bench.models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.base import registry
from bench.base.layers import first_comment, shipped

if TYPE_CHECKING:
    import pandas as pd

ANY_MODEL = ""  # has no block of its own in the files of methods


def methods() -> pd.DataFrame:
    """A row per method and preset, by name.

    `summary`; `base`: of a preset, the method that it is settings of; `needs_reward_gradient`: whether the
    reward has to be differentiable; `biased`: for its own objective; `trains`: whether it takes optimizer
    steps; `plugin`: the package that it comes from. The middle three are of the settings it ships with, and
    missing where it cannot be used, which its summary then says.
    """
    from bench.experiment.checks import fitted
    from bench.experiment.method_files import shipped_config
    from bench.models.config import ModelConfig

    steps, rows = ModelConfig.model_fields["steps"].default, dict[str, dict[str, Any]]()
    for name, entry in registry.entries("method").items():
        row: dict[str, Any] = {"summary": entry.summary(), "base": entry.base}
        row |= dict.fromkeys(("needs_reward_gradient", "biased", "trains"))
        if entry.problem is None:
            method = fitted(name, shipped_config(name, ANY_MODEL), steps)
            row |= {"needs_reward_gradient": method.needs_reward_grad, "biased": method.biased}
            row["trains"] = method.trains
        rows[name] = row | {"plugin": entry.plugin}
    return _table(rows, "method", flags=("needs_reward_gradient", "biased", "trains"))


def rewards() -> pd.DataFrame:
    """A row per reward, by name.

    `summary`; `differentiable`: whether it has a gradient, with suitable settings; `media`: "image" or
    "video"; `higher_is_better`; `scale`: what the number is, with its unit and usual range; `plugin`.
    """
    rows = dict[str, dict[str, Any]]()
    for name, entry in registry.entries("reward").items():
        row: dict[str, Any] = {"summary": entry.summary()}
        known = ("differentiable", "media", "higher_is_better", "scale")
        cls = None if entry.problem else entry.load()
        row |= {key: getattr(cls, key, None) for key in known}
        rows[name] = row | {"plugin": entry.plugin}
    return _table(rows, "reward", flags=("differentiable", "higher_is_better"))


def models() -> pd.DataFrame:
    """A row per model that ships, by name. Others are path:DIRECTORY and hub:ORG/NAME.

    `summary`; `family`: of architectures; `source`: where its weights come from; `reward`, `prompts`: what it
    is trained on unless told otherwise; `steps`: of its chain; `memory`: GiB of main memory of a cell on a
    CPU, where known.
    """
    from bench.experiment.model_files import model_file, model_settings

    rows = dict[str, dict[str, Any]]()
    for name, path in shipped("models").items():
        _, file = model_file(name)
        config = model_settings(name, ())
        rows[name] = {
            "summary": first_comment(path),
            "family": config.family,
            "source": config.source,
            "reward": file.reward,
            "prompts": file.prompts,
            "steps": config.steps,
            "memory": file.memory,
        }
    return _table(rows, "model", counts=("steps",), numbers=("memory",))


def _table(
    rows: dict[str, dict[str, Any]],
    index: str,
    flags: tuple[str, ...] = (),
    counts: tuple[str, ...] = (),
    numbers: tuple[str, ...] = (),
) -> pd.DataFrame:
    """With the names as its index, and texts where nothing else is said."""
    import pandas as pd

    found = pd.DataFrame.from_dict(rows, orient="index", dtype=object).rename_axis(index)
    kinds = dict.fromkeys(flags, "boolean") | dict.fromkeys(counts, "Int64")
    kinds |= dict.fromkeys(numbers, "float64")
    return found.astype({name: kinds.get(name, "string") for name in found.columns})
