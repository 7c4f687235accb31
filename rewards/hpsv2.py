"""Human Preference Score v2: CLIP ViT-H/14 fine-tuned on 798k human choices between pictures of a prompt.

Source: Wu et al. 2023, "Human Preference Score v2" (arXiv:2306.09341), weights v2.0 and v2.1 (package hpsv2).
The model, its weights and its tokenizer are the package's; the pictures' path, in the package on Pillow and
without gradient, is written differentiably: longer side → 224 (bicubic, antialiased), black borders to a
square, mean and standard deviation. Score: cosine of picture and prompt, times 100 as papers report it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn.functional import normalize

from bench.base.strict import Strict
from bench.data.need import Need, check_source
from bench.data.sources import locate
from bench.engine.chunks import in_chunks
from bench.engine.reward import Reward
from rewards.shared import compat
from rewards.shared.checkpoint import (
    CHUNK,
    HALF,
    Dtype,
    assign,
    fill_random,
    freeze,
    read_state,
    torch_dtype,
    without_weights,
)
from rewards.shared.clip_image import Preprocessor, fit_square
from rewards.shared.pairs import check_pairs
from rewards.shared.passes import HalfPass

FILES = {"v2.0": "HPS_v2_compressed.pt", "v2.1": "HPS_v2.1_compressed.pt"}
RANDOM = "random:ViT-H-14"


class Hpsv2Config(Strict):
    """Which version, from where, and the unit of the score."""

    random_source: ClassVar[str] = RANDOM
    packages: ClassVar[tuple[str, ...]] = ("hpsv2",)

    version: Literal["v2.0", "v2.1"] = Field(default="v2.1", description="of the weights; never mix them")
    source: str = Field(
        default="hub:xswu/HPSv2", description=f"`hub:org/name`, `path:directory` or `{RANDOM}`"
    )
    path: Path | None = Field(
        default=None, description="local directory with HPS_v2_compressed.pt or HPS_v2.1_compressed.pt"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit of a hub source")
    scale: Literal["x100", "raw"] = Field(
        default="x100", description="x100: as papers report; raw: the cosine, as hpsv2.score returns"
    )
    architecture: str = Field(default="ViT-H-14", description="name in open_clip's table; HPSv2 has ViT-H-14")
    dtype: Dtype = Field(default="half", description=HALF)
    chunk: int = Field(default=8, ge=1, description=CHUNK)

    @field_validator("source")
    @classmethod
    def _is_a_source(cls, value: str) -> str:
        check_source(value, ("hub", "path", "random"))
        if value.startswith("random:") and value != RANDOM:
            raise ValueError(f"{value!r} is not {RANDOM}")
        return value

    @property
    def random(self) -> bool:
        """Whether the weights are random numbers."""
        return self.path is None and self.source == RANDOM

    def needs(self, name: str, section: str) -> tuple[Need, ...]:
        """The version's file; nothing for random weights."""
        if self.random:
            return ()
        files = (FILES[self.version],)
        setting = f"{section}.path"
        return (Need(name, self.source, setting, self.path, self.revision, files, gigabytes=1.97),)


@final
class Hpsv2Reward(Reward):
    """100 · cos(image, text). Differentiable in the image; the model is frozen."""

    name: ClassVar[str] = "hpsv2"
    parameters: ClassVar[int] = 986_109_441
    Config: ClassVar[type[Strict]] = Hpsv2Config
    differentiable: ClassVar[bool] = True
    scale: ClassVar[str] = "cosine × 100, usually 15 … 35; v2.0 and v2.1 are not comparable"

    def __init__(self, config: Hpsv2Config, device: torch.device) -> None:
        """Loads the weights, downloading them if need be. Raises BenchError."""
        open_clip = compat.open_clip()
        dtype = torch_dtype(config.dtype, device)
        model: Any = without_weights(lambda: open_clip.create_model(config.architecture, device="meta"))
        if config.random:
            model = fill_random(model, dtype, config.source)
        else:
            (need,) = config.needs("reward hpsv2", "hpsv2")
            path = locate(need) / FILES[config.version]
            assign(model, read_state(path, "state_dict"), path)
            model = model.to(dtype)
        tokens = model.positional_embedding.shape[0]
        model.attn_mask = torch.full((tokens, tokens), float("-inf"), dtype=dtype).triu_(1)  # not in the file
        self.model = freeze(model, device)
        self.device, self.dtype, self.chunk = device, dtype, config.chunk
        self.tokenize, self.tokens = open_clip.tokenize, tokens
        self.side: int = model.visual.image_size[0]
        self.preprocessor = Preprocessor()
        self.factor = 100.0 if config.scale == "x100" else 1.0
        self._texts: dict[str, Tensor] = {}

    def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B] of images [B, 3, H, W] in [0, 1], float32."""
        check_pairs(media, prompts, "hpsv2")
        return self.factor * (self.image_features(media) * self.text_features(prompts)).sum(dim=1)

    def image_features(self, media: Tensor) -> Tensor:
        """Unit-norm embeddings [B, D] of images [B, 3, H, W] in [0, 1], differentiable."""
        return in_chunks(lambda part: self._image(media[part]), len(media), self.chunk)

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Unit-norm embeddings [B, D], constants without gradient, each prompt's computed once and alone."""
        for prompt in prompts:
            if prompt not in self._texts:
                ids = self.tokenize([prompt], context_length=self.tokens).to(self.device)
                with torch.no_grad():
                    self._texts[prompt] = normalize(self.model.encode_text(ids).float(), dim=-1)[0]
        return torch.stack([self._texts[prompt] for prompt in prompts])

    def _image(self, media: Tensor) -> Tensor:
        half = HalfPass(self.dtype)
        pixels = half.enter(self.preprocessor.normalise(fit_square(media.float(), self.side)))
        return normalize(half.leave(self.model.encode_image(pixels)), dim=-1)
