"""gradients/<id>/ in a results directory: one estimator at one θ, its settings, the sums over its draws."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from bench.base import registry
from bench.base.errors import BenchError
from bench.base.layers import load_config
from bench.base.strict import Strict
from bench.experiment.identity import PLACES, slug
from bench.experiment.resolve import Cell
from bench.experiment.settings import SCHEMA_VERSION, Choice, ModelChoice, Training
from bench.measure.gradients.moments import Moments
from bench.run.checkpoints import Checkpoints
from bench.run.store import WorkDir

INIT = "init"
FOLDER = "gradients"


class ProbeConfig(Strict):
    """Everything that one profile is of. method.name is what the user called it; its class is `base`."""

    schema_version: int = SCHEMA_VERSION
    method: Choice
    base: str = Field(description="the registered class that the method's settings are for")
    biased: bool = Field(description="what the method says of itself")
    aliases: tuple[str, ...] = Field(description="other names of the same settings")
    model: ModelChoice
    reward: Choice
    prompts: str
    prompts_per_step: int
    samples_per_prompt: int
    micro_batch: int
    kl: float = Field(default=0.0, description="weight of the KL term in the objective")
    seed: int
    at: str = Field(description="init, or the directory of the LoRA")
    threads: int
    digests: dict[str, str]

    @property
    def batch(self) -> int:
        """Samples of one gradient."""
        return self.prompts_per_step * self.samples_per_prompt

    @property
    def label(self) -> str:
        """The names of the method."""
        return " = ".join((self.method.name, *self.aliases))

    def same_target(self, other: ProbeConfig) -> bool:
        """Whether both are about the same model, θ, reward, prompts and batch."""
        return self._scope() == other._scope()

    def _scope(self) -> dict[str, Any]:
        tree = self.model_dump(mode="json", exclude={"method", "base", "biased", "aliases", "threads", "kl"})
        return _placeless(tree)

    @property
    def deployed(self) -> bool:
        """Whether this is the exact gradient of the deterministic sampler."""
        return self.base == "full_bp" and self.method.config["eta"] == 0


def _placeless(tree: dict[str, Any]) -> dict[str, Any]:
    """Without names and places: the digests say what was there."""
    for key in ("model", "reward"):
        tree[key]["config"] = {k: v for k, v in tree[key]["config"].items() if k not in PLACES}
    tree["at"] = INIT if tree["at"] == INIT else "lora"
    del tree["model"]["name"], tree["prompts"]
    return tree


def probe_config(
    cell: Cell, training: Training, biased: bool, at: str, digests: dict[str, str]
) -> ProbeConfig:
    """The profile of a cell's method. digests: of the LoRA, over the cell's own."""
    config, train = cell.config, training.train
    entry = registry.find("method", training.method.name)
    return ProbeConfig(
        method=training.method,
        base=entry.name if entry.base is None else entry.base,
        biased=biased,
        aliases=(),
        model=config.model,
        reward=training.reward,
        prompts=config.prompts,
        prompts_per_step=train.prompts_per_step,
        samples_per_prompt=train.samples_per_prompt,
        micro_batch=train.at_once,
        kl=train.kl,
        seed=training.seed,
        at=at,
        threads=config.threads,
        digests=config.digests | digests,
    )


def probe_id(config: ProbeConfig) -> str:
    """Readable name and a hash of what changes numbers; presets of the same settings share it."""
    tree = _placeless(config.model_dump(mode="json", exclude={"aliases", "biased"}))
    del tree["method"]["name"]
    if not config.kl:  # profiles from before there was one
        del tree["kl"]
    digest = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]
    place = INIT if config.at == INIT else "trained"
    parts = (config.base, slug(config.model.name), slug(config.reward.name), place, f"s{config.seed}", digest)
    return "-".join(parts)


class ProbeDir(WorkDir):
    """gradients/<id>/: one profile's files."""

    @property
    def draws(self) -> Path:
        """One line per saved state: how far it is."""
        return self.path / "draws.jsonl"

    def config(self) -> ProbeConfig:
        """The resolved settings of the gradient profile."""
        return load_config(self.path / "config.yaml", ProbeConfig)

    @property
    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(self.path / "checkpoint")

    def save(self, moments: Moments, method_state: dict[Any, Any]) -> None:
        """Write the sums and what the method has learnt."""
        stream = io.BytesIO()
        torch.save({"moments": moments.payload(), "method": method_state}, stream)
        self._checkpoints.write(moments.draws, stream.getvalue())

    def restore(self) -> tuple[Saved | None, list[str]]:
        """The newest undamaged state (None: there is none yet), and what to tell about damaged ones.

        Raises BenchError if there are states and none can be used.
        """
        data, messages = self._checkpoints.read()
        if data is None:
            return None, messages
        payload = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        try:
            return Saved(Moments.restored(payload["moments"]), payload["method"]), messages
        except KeyError as error:
            raise BenchError(
                f"{self.path}: its sums lack {error}: another version of this program wrote them. Start "
                "again with --force."
            ) from error


@dataclass(frozen=True)
class Saved:
    """A state as it was saved."""

    moments: Moments
    method: dict[Any, Any]


def probes(results: Path) -> list[ProbeDir]:
    """All profiles that were ever started below a results directory, by name."""
    return [ProbeDir(path.parent) for path in sorted((results / FOLDER).glob("*/config.yaml"))]
