"""Text-image agreement by any CLIP checkpoint in transformers' format.

Sources: Radford et al. 2021 (CLIP, arXiv:2103.00020), cosine of the two embeddings; Kirstain et al. 2023
(PickScore, arXiv:2305.01569), the same model class fine-tuned on preferences, exp(logit_scale) · cosine.
Pictures take the path of the checkpoint's own CLIPImageProcessor, written differentiably
(`rewards.shared.clip_image`).
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
from bench.data.need import PROCESSOR_PATTERNS, Need, check_source
from bench.data.sources import locate
from bench.engine.chunks import in_chunks
from bench.engine.reward import Reward
from rewards.shared.checkpoint import (
    CHUNK,
    HALF,
    Dtype,
    check_vocabulary,
    freeze,
    read_model,
    read_tokenizer,
    torch_dtype,
)
from rewards.shared.clip_image import Preprocessor
from rewards.shared.pairs import check_pairs
from rewards.shared.passes import HalfPass
from rewards.shared.random_clip import ARCHITECTURES, random_clip

EMBEDDED = "embedded:clip"
GIGABYTES = {"hub:yuvalkirstain/PickScore_v1": 3.95, "hub:openai/clip-vit-large-patch14": 1.72}
RANDOM = tuple(ARCHITECTURES)


class ClipConfig(Strict):
    """Which checkpoint, and what is made of its cosine."""

    source: str = Field(
        default=EMBEDDED, description="`embedded:clip`, `hub:org/name`, `path:directory` or `random:ViT-L-14`"
    )
    path: Path | None = Field(
        default=None, description="local directory with the checkpoint, instead of source"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit of a hub source")
    processor: str | None = Field(
        default=None,
        description="where tokenizer and preprocessor_config.json are, if not with the checkpoint",
    )
    scale: Literal["cosine", "logit"] = Field(
        default="cosine", description="cosine: in [-1, 1]; logit: exp(logit_scale) · cosine, as PickScore"
    )
    dtype: Dtype = Field(default="float32", description=HALF)
    chunk: int = Field(default=32, ge=1, description=CHUNK)

    @field_validator("source")
    @classmethod
    def _is_a_source(cls, value: str) -> str:
        check_source(value, ("embedded", "hub", "path", "random"))
        kind, _, rest = value.partition(":")
        if kind == "random" and rest not in RANDOM:
            raise ValueError(f"{value!r} is none of {', '.join(f'random:{name}' for name in RANDOM)}")
        return value

    @field_validator("processor")
    @classmethod
    def _is_a_place(cls, value: str | None) -> str | None:
        return check_source(value, ("embedded", "hub", "path"))

    @property
    def random(self) -> str | None:
        """The architecture whose weights are random numbers, if they are."""
        kind, _, rest = self.source.partition(":")
        return rest if kind == "random" and self.path is None else None

    def needs(self, name: str, section: str) -> tuple[Need, ...]:
        """The checkpoint, then the processor if it is elsewhere; nothing for random weights."""
        if self.random is not None:
            return ()
        size = GIGABYTES[self.source] if self.path is None and self.source in GIGABYTES else None
        weights = Need(name, self.source, f"{section}.path", self.path, self.revision, gigabytes=size)
        if self.processor is None:
            return (weights,)
        setting = f"{section}.processor"
        beside = Need(f"{name} processor", self.processor, setting, files=PROCESSOR_PATTERNS, gigabytes=0.01)
        return weights, beside


@final
class ClipReward(Reward):
    """cos(image, text), or exp(logit_scale) times that. Differentiable in the image; the model is frozen."""

    name: ClassVar[str] = "clip"
    Config: ClassVar[type[Strict]] = ClipConfig
    differentiable: ClassVar[bool] = True
    scale: ClassVar[str] = "cosine of image and text, in [-1, 1]; with `scale: logit` times exp(logit_scale)"

    def __init__(self, config: ClipConfig, device: torch.device, name: str = "clip") -> None:
        """Loads the checkpoint, downloading it if it is on the hub and not cached. Raises BenchError.

        name: of the reward in messages, where another one is made of this.
        """
        self.called, self.device, self.chunk = name, device, config.chunk
        if config.random is not None:
            model, self.tokenizer = random_clip(config.random)
            self.preprocessor = Preprocessor()
        else:
            places = [locate(need) for need in config.needs(f"reward {name}", name)]
            model, self.tokenizer = _load(places[0], places[-1], name)
            self.preprocessor = Preprocessor.load(places[-1])
        self.logit_scale = model.logit_scale.detach().float().exp().item()  # 1 % off in bfloat16
        self.model: Any = freeze(model.to(torch_dtype(config.dtype, device)), device)
        self.max_tokens: int = model.config.to_dict()["text_config"]["max_position_embeddings"]
        self.logit = config.scale == "logit"
        self._texts: dict[str, Tensor] = {}

    def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B] of images [B, 3, H, W] in [0, 1], float32 (float64 for a float64 model)."""
        check_pairs(media, prompts, self.called)
        cosine = (self.image_features(media) * self.text_features(prompts)).sum(dim=1)
        return cosine * self.logit_scale if self.logit else cosine

    def image_features(self, media: Tensor) -> Tensor:
        """Unit-norm embeddings [B, D] of images [B, 3, H, W] in [0, 1], differentiable."""
        return in_chunks(lambda part: self._image(media[part]), len(media), self.chunk)

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Unit-norm embeddings [B, D], constants without gradient, each prompt's computed once."""
        for prompt in prompts:
            if prompt not in self._texts:
                self._texts[prompt] = self._text(prompt)
        return torch.stack([self._texts[prompt] for prompt in prompts])

    def _image(self, media: Tensor) -> Tensor:
        half = HalfPass(self.model.dtype)
        pixels = half.enter(self.preprocessor(media))
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        return normalize(half.leave(self.model.visual_projection(pooled)), dim=-1)

    def _text(self, prompt: str) -> Tensor:
        """[D]. Each prompt is embedded alone: companions do not change even the last bit."""
        tokens = self.tokenizer(
            [prompt], truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.device)
        with torch.no_grad():
            pooled = self.model.text_model(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).pooler_output
            return _unit(self.model.text_projection(pooled))[0]


def _load(directory: Path, beside: Path, name: str) -> tuple[Any, Any]:
    """Model (float32) and tokenizer."""
    from transformers import CLIPModel, CLIPTokenizer

    model = read_model(CLIPModel, directory, name, "CLIP")
    tokenizer = read_tokenizer(CLIPTokenizer, beside, name)
    check_vocabulary(tokenizer, model.config.text_config.vocab_size, beside, name)
    return model, tokenizer


def _unit(features: Tensor) -> Tensor:
    """Rows of norm 1, in float32 or wider."""
    return normalize(features if features.dtype == torch.float64 else features.float(), dim=-1)
