"""What cells are called for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.base.labels import told_apart
from bench.experiment.settings import CellConfig


def titles(configs: Sequence[CellConfig]) -> list[str]:
    """The method, what tells the cell from others of that method, and the seed."""
    found = [""] * len(configs)
    for label in dict.fromkeys(config.label for config in configs):
        same = [n for n, config in enumerate(configs) if config.label == label]
        apart = told_apart(label, [_differences(configs[n]) for n in same])
        for n, title in zip(same, apart, strict=True):
            training = configs[n].training
            found[n] = title if training is None else f"{title} seed {training.seed}"
    return found


def _differences(config: CellConfig) -> dict[str, Any]:
    """What cells of one method may differ in, apart from the seed."""
    model, training = config.model, config.training
    sampler = {"solver": model.config.solver, "steps": model.config.steps, "guidance": model.config.guidance}
    tree: dict[str, Any] = {"model": model.name, "prompts": config.prompts, **sampler}
    tree["dcot"] = "off" if config.dcot is None else "on"
    if training is not None:
        tree |= {"reward": training.reward.name, "method": training.method.config}
    return tree
