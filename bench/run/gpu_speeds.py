"""How fast graphics cards run the models' networks: configs/gpus.yaml. No torch here."""

from __future__ import annotations

from functools import cache

from pydantic import Field

from bench.base.layers import config_dir, read_yaml
from bench.base.strict import Strict
from bench.models.config import ModelConfig
from bench.models.sizes import architecture_name


class Number(Strict):
    """A number and where it is from."""

    value: float = Field(gt=0)
    source: str


class Rate(Strict):
    """Steps of the chain of one sample, with guidance, that a card makes in a second."""

    rate: float = Field(gt=0)
    source: str


class Speeds(Strict):
    """An architecture's rates, of samples of this size. pixels: height and width."""

    pixels: tuple[int, int]
    frames: int = 1
    cards: dict[str, Rate]


class Factors(Strict):
    """Times of other things over that of a pass of the network, or of a step of the chain (scoring)."""

    lora: Number
    backward: Number
    scoring: Number
    scoring_gradient: Number
    float32: Number


class Published(Strict):
    """configs/gpus.yaml."""

    architectures: dict[str, Speeds]
    factors: Factors


@cache
def published() -> Published:
    """The table that ships. Raises BenchError if it was damaged."""
    return Published.model_validate(read_yaml(config_dir() / "gpus.yaml"))


def passes(model: ModelConfig) -> int:
    """Of the network, in a step of one sample."""
    return 1 if model.guidance == 1 else 2


def _speeds(model: ModelConfig) -> Speeds | None:
    return published().architectures.get(architecture_name(model) or "")


def kind(model: ModelConfig) -> str | None:
    """Models of one kind run at one rate, for their size. None: the table has no such architecture."""
    name = None if _speeds(model) is None else architecture_name(model)
    return name if name is None or model.dtype != "float32" else f"{name} float32"


def rates(model: ModelConfig) -> dict[str, float]:
    """Work per second by card, as published: with the LoRA, and slower in float32."""
    speeds, factors = _speeds(model), published().factors
    slower = factors.lora.value * (factors.float32.value if model.dtype == "float32" else 1.0)
    return {} if speeds is None else {card: one.rate / slower for card, one in speeds.cards.items()}


def size(model: ModelConfig) -> float | None:
    """Work of a step over that of one in the table."""
    speeds = _speeds(model)
    if speeds is None:
        return None
    (height, width), (high, wide) = model.pixels or speeds.pixels, speeds.pixels
    return passes(model) / 2 * height * width / (high * wide) * (model.frames or 1) / speeds.frames
