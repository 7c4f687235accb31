"""CLIP checkpoints in transformers' format: pictures and texts in one space, and the score that they give.

Pictures take the path of the checkpoint's own CLIPImageProcessor, written differentiably
(`rewards.shared.clip_image`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from bench.base.lazy import torch
from bench.data.need import PROCESSOR_PATTERNS, Need, check_source
from rewards.shared.checkpoint import CHUNK, HALF, Dtype, check_vocabulary, read_model, read_tokenizer
from rewards.shared.checkpoint_reward import PINNED, CheckpointConfig, TwoTowers
from rewards.shared.clip_image import Preprocessor
from rewards.shared.passes import HalfPass
from rewards.shared.random_clip import ARCHITECTURES, random_clip

EMBEDDED = "embedded:clip"


class ClipConfig(CheckpointConfig):
    """Which checkpoint, and what is made of its cosine."""

    kinds: ClassVar[tuple[str, ...]] = ("embedded", "hub", "path", "random")
    random_sources: ClassVar[tuple[str, ...]] = tuple(f"random:{name}" for name in ARCHITECTURES)
    gigabytes: ClassVar[Mapping[str, float]] = {
        "hub:yuvalkirstain/PickScore_v1": 3.95,
        "hub:openai/clip-vit-large-patch14": 1.72,
    }

    source: str = Field(
        default=EMBEDDED, description="`embedded:clip`, `hub:org/name`, `path:directory` or `random:ViT-L-14`"
    )
    processor: str | None = Field(
        default=None,
        description="where tokenizer and preprocessor_config.json are, if not with the checkpoint",
    )
    scale: Literal["cosine", "logit"] = Field(
        default="cosine", description="cosine: in [-1, 1]; logit: exp(logit_scale) · cosine, as PickScore"
    )
    dtype: Dtype = Field(default="float32", description=HALF)
    chunk: int = Field(default=32, ge=1, description=CHUNK)

    @field_validator("processor")
    @classmethod
    def _is_a_place(cls, value: str | None) -> str | None:
        return check_source(value, ("embedded", "hub", "path"))

    def needs(self, name: str, section: str) -> tuple[Need, ...]:
        """The checkpoint, then the processor if it is elsewhere; nothing for random weights."""
        if self.random:
            return ()
        weights = self.checkpoint(name, section)
        if self.processor is None:
            return (weights,)
        setting = f"{section}.processor"
        pinned = PINNED.get(self.processor)
        return weights, Need(
            f"{name} processor", self.processor, setting, None, pinned, PROCESSOR_PATTERNS, gigabytes=0.01
        )


class ClipTowers(TwoTowers):
    """A CLIP model's two embeddings."""

    preprocessor: Preprocessor

    def _random_clip(self, source: str) -> Any:
        """The model (float32, on the CPU) of a source `random:ARCHITECTURE`; sets what goes with it."""
        model, self.tokenizer = random_clip(source.removeprefix("random:"))
        self.preprocessor = Preprocessor()
        return self._measured(model)

    def _read_clip(self, weights: Path, beside: Path) -> Any:
        """The model (on the CPU); sets what goes with it, which is in the directory `beside`."""
        from transformers import CLIPModel, CLIPTokenizer

        class Clip(CLIPModel):
            _keep_in_fp32_modules_strict = ["logit_scale"]  # noqa: RUF012  (a number that scores are times)

        model = read_model(Clip, weights, self.name, "CLIP", self.dtype)
        self.tokenizer = read_tokenizer(CLIPTokenizer, beside, self.name)
        check_vocabulary(self.tokenizer, model.config.text_config.vocab_size, beside, self.name)
        self.preprocessor = Preprocessor.load(beside)
        return self._measured(model)

    def _measured(self, model: Any) -> Any:
        self.logit_scale: float = model.logit_scale.detach().float().exp().item()  # 1 % off in bfloat16
        return model

    def _image(self, media: torch.Tensor) -> torch.Tensor:
        half = HalfPass(self.model.dtype)
        pixels = half.enter(self.preprocessor(media))
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        return torch.nn.functional.normalize(half.leave(self.model.visual_projection(pooled)), dim=-1)

    def _text(self, prompt: str) -> torch.Tensor:
        return _unit(projected_text(self.model, self.tokenizer, prompt, self.device))[0]


class ClipScore(ClipTowers):
    """cos(image, text), or exp(logit_scale) times that. Differentiable in the image; the model is frozen."""

    def _random(self) -> Any:
        return self._random_clip(self.config.source)

    def _read(self, *places: Path) -> Any:
        return self._read_clip(places[0], places[-1])

    def _scores(self, media: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        cosine = self.cosine(media, prompts)
        return cosine * self.logit_scale if self.config.scale == "logit" else cosine


def projected_text(model: Any, tokenizer: Any, prompt: str, device: torch.device) -> torch.Tensor:
    """[1, D] without gradient: a prompt, cut to what the model reads, by a CLIP-like model's text tower."""
    longest = model.config.to_dict()["text_config"]["max_position_embeddings"]
    tokens = tokenizer([prompt], truncation=True, max_length=longest, return_tensors="pt").to(device)
    with torch.no_grad():
        pooled = model.text_model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output
        return model.text_projection(pooled)


def _unit(features: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(
        features if features.dtype == torch.float64 else features.float(), dim=-1
    )
