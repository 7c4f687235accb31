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

from pydantic import Field

from bench.base.lazy import torch
from bench.base.strict import Strict
from bench.data.need import Need
from rewards.shared import compat
from rewards.shared.checkpoint import assign, fill_random, read_state, without_weights
from rewards.shared.checkpoint_reward import CheckpointConfig, TwoTowers
from rewards.shared.clip_image import Preprocessor, fit_square
from rewards.shared.passes import HalfPass

FILES = {"v2.0": "HPS_v2_compressed.pt", "v2.1": "HPS_v2.1_compressed.pt"}
RANDOM = "random:ViT-H-14"


class Hpsv2Config(CheckpointConfig):
    """Which version, from where, and the unit of the score."""

    random_source: ClassVar[str] = RANDOM
    random_sources: ClassVar[tuple[str, ...]] = (RANDOM,)
    packages: ClassVar[tuple[str, ...]] = ("hpsv2",)

    version: Literal["v2.0", "v2.1"] = Field(default="v2.1", description="of the weights; never mix them")
    source: str = Field(
        default="hub:xswu/HPSv2", description=f"`hub:org/name`, `path:directory` or `{RANDOM}`"
    )
    path: Path | None = Field(
        default=None, description="local directory with HPS_v2_compressed.pt or HPS_v2.1_compressed.pt"
    )
    scale: Literal["x100", "raw"] = Field(
        default="x100", description="x100: as papers report; raw: the cosine, as hpsv2.score returns"
    )
    architecture: str = Field(default="ViT-H-14", description="name in open_clip's table; HPSv2 has ViT-H-14")

    def needs(self, name: str, section: str) -> tuple[Need, ...]:
        """The version's file; nothing for random weights."""
        files = (FILES[self.version],)
        return () if self.random else (self.checkpoint(name, section, files=files, gigabytes=1.97),)


@final
class Hpsv2Reward(TwoTowers):
    """100 · cos(image, text). Differentiable in the image; the model is frozen."""

    name: ClassVar[str] = "hpsv2"
    parameters: ClassVar[int] = 986_109_441
    Config: ClassVar[type[Strict]] = Hpsv2Config
    scale: ClassVar[str] = "cosine × 100, usually 15 … 35; v2.0 and v2.1 are not comparable"

    def __init__(self, config: Hpsv2Config, device: torch.device) -> None:
        """Loads the weights, downloading them if need be. Raises BenchError."""
        compat.open_clip()  # a package that is not there is named before anything is fetched
        super().__init__(config, device)
        self.side: int = self.model.visual.image_size[0]
        self.preprocessor = Preprocessor()

    def _random(self) -> Any:
        return self._masked(fill_random(self._empty(), self.dtype, self.config.source))

    def _read(self, *places: Path) -> Any:
        model, path = self._empty(), places[0] / FILES[self.config.version]
        assign(model, read_state(path, "state_dict"), path)
        return self._masked(model.to(self.dtype))

    def _empty(self) -> Any:
        create = compat.open_clip().create_model
        return without_weights(lambda: create(self.config.architecture, device="meta"))

    def _masked(self, model: Any) -> Any:
        """With the attention mask of texts, which is not in the file."""
        self.tokens: int = model.positional_embedding.shape[0]
        shape = (self.tokens, self.tokens)
        model.attn_mask = torch.full(shape, float("-inf"), dtype=self.dtype).triu_(1)
        return model

    def _scores(self, media: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        return (100.0 if self.config.scale == "x100" else 1.0) * self.cosine(media, prompts)

    def _image(self, media: torch.Tensor) -> torch.Tensor:
        half = HalfPass(self.dtype)
        pixels = half.enter(self.preprocessor.normalise(fit_square(media.float(), self.side)))
        return torch.nn.functional.normalize(half.leave(self.model.encode_image(pixels)), dim=-1)

    def _text(self, prompt: str) -> torch.Tensor:
        ids = compat.open_clip().tokenize([prompt], context_length=self.tokens).to(self.device)
        with torch.no_grad():
            return torch.nn.functional.normalize(self.model.encode_text(ids).float(), dim=-1)[0]
