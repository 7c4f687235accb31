"""YolosImageProcessor, differentiably: pictures in [0, 1] → what a YOLOS detector takes.

Source: transformers' YolosImageProcessor: the shorter side to a length unless that makes the longer side too
long, both sides cut to multiples of 16, mean and standard deviation. All pictures of a batch have one size,
so nothing is padded. As in `rewards.shared.clip_image` we do not round to 8 bits after the resize.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.base.lazy import torch
from rewards.shared.clip_image import Preprocessor, Size, read_settings

MULTIPLE, LONGEST = 16, 1333
IMAGENET = {  # what absent keys mean
    "resample": 2,
    "do_center_crop": False,
    "image_mean": (0.485, 0.456, 0.406),
    "image_std": (0.229, 0.224, 0.225),
}


@dataclass(frozen=True)
class DetectorImages:
    """What preprocessor_config.json says. shortest: pixels of the shorter side; longest: most of the longer;
    plain: everything but the size."""

    shortest: int = 800
    longest: int = LONGEST
    plain: Preprocessor = field(default_factory=lambda: Preprocessor.model_validate(IMAGENET))

    @classmethod
    def load(cls, directory: Path) -> DetectorImages:
        """`size` is {shortest_edge, longest_edge}, or as in old files a number beside `max_size`. Raises
        BenchError."""
        return read_settings(directory, "YOLOS", cls._parsed)

    @classmethod
    def _parsed(cls, found: dict[str, Any]) -> DetectorImages:
        rest = {key: value for key, value in found.items() if key != "size"}
        plain = Preprocessor.model_validate(IMAGENET | rest | {"do_center_crop": False})
        if "size" not in found:
            return cls(plain=plain)
        size = found["size"]
        if isinstance(size, int):
            return cls(size, int({"max_size": LONGEST, **found}["max_size"]), plain)
        if not isinstance(size, dict) or set(size) != {"shortest_edge", "longest_edge"}:
            raise ValueError("only a size of {shortest_edge, longest_edge} is supported")
        return cls(int(size["shortest_edge"]), int(size["longest_edge"]), plain)

    def __call__(self, media: torch.Tensor) -> torch.Tensor:
        """Pictures [B, 3, H, W] in [0, 1] → pixel values [B, 3, h, w], at least float32. Differentiable."""
        height, width = self.resized(media.shape[-2], media.shape[-1])
        return self.plain.model_copy(update={"size": {"height": height, "width": width}})(media)

    def resized(self, height: int, width: int) -> Size:
        """Height and width after the resize, as transformers rounds them."""
        short, long = min(height, width), max(height, width)
        edge: float = self.shortest
        if long / short * edge > self.longest:
            edge = self.longest * short / long
        whole = round(edge)
        other = long if short == whole else int(edge * long / short)
        whole, other = (max(MULTIPLE, side - side % MULTIPLE) for side in (whole, other))
        return (other, whole) if width < height else (whole, other)
