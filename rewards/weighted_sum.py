"""A weighted sum of rewards: Σ weight · sign · score, the sign being -1 where a reward's low scores are good.

So a larger sum is always better and a positive weight always asks for better pictures. It has a gradient if
every term has one. Scores differ in unit and spread (docs/rewards.md): weights are in units of one over the
term's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

from pydantic import Field

from bench.base import registry
from bench.base.layers import Layers, read_yaml, readable, shipped
from bench.base.lazy import torch
from bench.base.strict import Strict
from bench.data.digests import HasDigest, text_digest
from bench.data.need import Need, needs_of
from bench.engine.reward import Media, Reward, check_prompts, is_differentiable, media_of, scores


class Summand(Strict):
    """One reward of the sum."""

    name: str = Field(description="a registered reward")
    weight: float = Field(default=1.0, allow_inf_nan=False, description="what its score is multiplied by")
    config: dict[str, Any] = Field(default_factory=dict, description="its settings, over the shipped ones")

    def settings(self) -> Strict:
        """Its settings: configs/rewards/<name>.yaml, then `config`. Raises BenchError."""
        layers, files = Layers(), shipped("rewards")
        if self.name in files:
            layers.add(readable(files[self.name]), "", read_yaml(files[self.name]))
        layers.add("reward weighted", self.name, self.config)
        return layers.build(registry.load("reward", self.name).Config)


class WeightedConfig(Strict):
    """The rewards that are summed, with their weights."""

    terms: tuple[Summand, ...] = Field(min_length=1, description="name, weight and config of each")

    @property
    def differentiable(self) -> bool:
        """Whether every term has a gradient."""
        return all(is_differentiable(registry.load("reward", t.name), t.settings()) for t in self.terms)

    @property
    def media(self) -> Media:
        """Videos if any term is a reward of videos; the others then take the mean over frames."""
        found = (media_of(registry.load("reward", t.name), t.settings()) for t in self.terms)
        return "video" if "video" in found else "image"

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise BenchError for a prompt that a term cannot score."""
        for term in self.terms:
            check_prompts(term.settings(), prompts)

    def digest(self) -> str | None:
        """Of the terms that are more than their settings; None without any. Raises BenchError."""
        settings = [term.settings() for term in self.terms]
        found = [config.digest() for config in settings if isinstance(config, HasDigest)]
        return text_digest(tuple(code for code in found if code)) if any(found) else None

    def needs(self, name: str, section: str) -> tuple[Need, ...]:
        """What the terms need; a term's settings are set under its own name."""
        return tuple(
            need
            for place, term in enumerate(self.terms, start=1)
            for need in needs_of(term.settings(), f"{name} term {place} {term.name}", term.name)
        )


@final
class WeightedReward(Reward):
    """Σ weight · sign · score of its terms."""

    name: ClassVar[str] = "weighted"
    Config: ClassVar[type[Strict]] = WeightedConfig
    differentiable: ClassVar[bool] = True  # its settings say if all terms are
    scale: ClassVar[str] = "weighted sum of its terms, each with the sign that makes more better"

    def __init__(self, config: WeightedConfig, device: torch.device) -> None:
        """Loads every term. Raises BenchError."""
        self.media = config.media
        self.terms = [
            (term.weight, registry.load("reward", term.name)(term.settings(), device))
            for term in config.terms
        ]

    def score(self, media: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """The sum [B] of images [B, 3, H, W] (with a term of videos: videos) in [0, 1], float32."""
        signed = [
            (weight if reward.higher_is_better else -weight) * scores(reward, media, prompts).float()
            for weight, reward in self.terms
        ]
        return torch.stack(signed).sum(dim=0)
