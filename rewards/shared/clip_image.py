"""CLIPImageProcessor, differentiably: pictures in [0, 1] → what a CLIP vision model takes.

Source: transformers' CLIPImageProcessor on Pillow: resize the shortest edge (bicubic or bilinear, with
antialiasing), crop the centre, normalise by mean and std. Pillow resizes along the width, then along the
height, and clips and rounds to 8 bits after each; we clip but do not round. So the two agree within 2/255 on
the [0, 1] scale before normalisation, and to float precision where nothing is resized. (Pillow 13 takes the
height first for pictures much taller than wide; clipped edges then differ by more, up to 19/255 measured.)
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from bench.base.errors import BenchError
from bench.base.lazy import torch

Size = tuple[int, int]
Parsed = TypeVar("Parsed")
PIL_FILTERS = {2: "bilinear", 3: "bicubic"}


class Preprocessor(BaseModel):
    """What preprocessor_config.json says. Absent keys mean what they mean to CLIPImageProcessor.

    size: {"shortest_edge": n} or {"height": h, "width": w} in pixels, an old file's n being the former;
    crop_size: {"height": h, "width": w}, an old file's n being a square. Other keys play no part here.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    do_resize: bool = True
    size: dict[str, int] = {"shortest_edge": 224}
    resample: int = Field(default=3, description="Pillow's number of the filter")
    do_center_crop: bool = True
    crop_size: dict[str, int] = {"height": 224, "width": 224}
    do_normalize: bool = True
    torchvision_crop: bool = Field(default=False, description="an odd margin is halved as torchvision does")
    image_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    @field_validator("size", mode="before")
    @classmethod
    def _edge(cls, value: Any) -> Any:
        sides = {"shortest_edge": value} if isinstance(value, int) else value
        if isinstance(sides, dict):
            sides = {name: side for name, side in sides.items() if side is not None}
            if set(sides) not in ({"shortest_edge"}, {"height", "width"}):
                raise ValueError("only {shortest_edge} and {height, width} are supported")
        return sides

    @field_validator("crop_size", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return {"height": value, "width": value} if isinstance(value, int) else value

    @field_validator("resample")
    @classmethod
    def _known_filter(cls, value: int) -> int:
        if value not in PIL_FILTERS:
            raise ValueError(f"Pillow filter {value} is not supported, only {PIL_FILTERS}")
        return value

    @classmethod
    def load(
        cls, directory: Path, absent: Mapping[str, Any] | None = None, kind: str = "CLIP"
    ) -> Preprocessor:
        """What a checkpoint's file says. Raises BenchError.

        absent: what keys mean that are not there, where that differs from CLIPImageProcessor's meaning.
        kind: of the model, for messages.
        """
        return read_settings(directory, kind, lambda found: cls.model_validate({**(absent or {}), **found}))

    def __call__(self, media: torch.Tensor) -> torch.Tensor:
        """Pictures [B, 3, H, W] in [0, 1] → pixel values [B, 3, h, w], at least float32. Differentiable."""
        if media.ndim != 4 or media.shape[1] != 3:
            raise BenchError(f"expected images [B, 3, H, W], got {list(media.shape)}")
        x = media if media.dtype == torch.float64 else media.float()
        if self.do_resize:
            x = resize(x, self._resized(x.shape[-2], x.shape[-1]), PIL_FILTERS[self.resample])
        if self.do_center_crop:
            size = self.crop_size["height"], self.crop_size["width"]
            x = centre_crop(x, size, round if self.torchvision_crop else math.floor)
        return self.normalise(x) if self.do_normalize else x

    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        """Less the mean, divided by the standard deviation, per channel."""
        return (x - _channels(self.image_mean, x)) / _channels(self.image_std, x)

    def _resized(self, height: int, width: int) -> Size:
        if "shortest_edge" not in self.size:
            return self.size["height"], self.size["width"]
        edge = self.size["shortest_edge"]
        longer = int(edge * max(height, width) / min(height, width))
        return (longer, edge) if width <= height else (edge, longer)


def read_settings(directory: Path, kind: str, parse: Callable[[dict[str, Any]], Parsed]) -> Parsed:
    """`preprocessor_config.json`, or transformers 5's `processor_config.json`, parsed. Raises BenchError.

    kind: of the model, for messages.
    """
    old, new = directory / "preprocessor_config.json", directory / "processor_config.json"
    path = old if old.is_file() else new
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        return parse(settings if path == old else settings["image_processor"])
    except FileNotFoundError as error:
        raise BenchError(f"{old}: not there. It says how the checkpoint wants its pictures.") from error
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise BenchError(f"{path}: cannot be used for a {kind} reward: {error}") from error


def resize(x: torch.Tensor, size: Size, mode: str) -> torch.Tensor:
    """Pillow's antialiased resize of x [B, C, H, W] in [0, 1], along the width and then along the height."""
    if x.shape[-1] != size[1]:
        x = (x @ _filter(x, x.shape[-1], size[1], mode).mT).clamp(0, 1)
    if x.shape[-2] != size[0]:
        x = (_filter(x, x.shape[-2], size[0], mode) @ x).clamp(0, 1)
    return x


def _filter(x: torch.Tensor, have: int, want: int, mode: str) -> torch.Tensor:
    """The matrix [want, have] for x, kept for the next call; stand-ins that have no numbers get their own."""
    make = _matrix if type(x) is torch.Tensor else _matrix.__wrapped__
    return make(have, want, mode, x.dtype, x.device)


@cache
def _matrix(have: int, want: int, mode: str, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """What an antialiased resize of `have` values to `want` multiplies them with: [want, have].

    torch's own weights, got from the rows of a unit matrix. Its resize and this product agree to rounding,
    but on a GPU its backward adds in another order each time.
    """
    rows = torch.eye(have, dtype=torch.float64)[None, None]
    found = torch.nn.functional.interpolate(
        rows, size=(want, have), mode=mode, antialias=True, align_corners=False
    )
    return found[0, 0].to(dtype).to(device)


def centre_crop(x: torch.Tensor, size: Size, whole: Callable[[float], int] = math.floor) -> torch.Tensor:
    """The middle of x [B, C, H, W]. whole: what is above and to the left of an odd margin's half pixel: floor
    in transformers; in torchvision Python's round, so with a margin of 3 it is 2."""
    top, left = (whole((have - want) / 2) for have, want in zip(x.shape[-2:], size, strict=True))
    if top < 0 or left < 0:
        raise BenchError(f"cannot crop {size} from {tuple(x.shape[-2:])} pixels: check size and crop_size")
    return x[..., top : top + size[0], left : left + size[1]]


def fit_square(x: torch.Tensor, side: int) -> torch.Tensor:
    """x [B, C, H, W] with its longer side brought to `side` (bicubic), black around: [B, C, side, side].

    Source: hpsv2's `ResizeMaxSize` on torchvision tensors: one antialiased resize of both sides, overshoot
    not clipped; with an odd margin the smaller half is above and to the left. Agrees to float precision.
    """
    scale = side / max(x.shape[-2:])
    height, width = (max(1, round(length * scale)) for length in x.shape[-2:])
    for axis, length in ((-1, width), (-2, height)):
        if x.shape[axis] != length:
            weights = _filter(x, x.shape[axis], length, "bicubic")
            x = x @ weights.mT if axis == -1 else weights @ x
    top, left = (side - height) // 2, (side - width) // 2
    return torch.nn.functional.pad(x, (left, side - width - left, top, side - height - top))


def _channels(values: tuple[float, float, float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]
