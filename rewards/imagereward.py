"""ImageReward: BLIP (ViT-L/16 and BERT with cross-attention) trained on 137k expert comparisons of pictures.

Source: Xu et al. 2023, "ImageReward" (arXiv:2304.05977), package image-reward 1.5. The model is the package's
and so is the call, its `score_gard`: CLS state → MLP → (r - 0.16717363) / 1.03333950, which has mean 0 and
standard deviation 1 on the authors' validation set. The pictures' path, in the package on Pillow, is written
differentiably: shorter side → 224 (bicubic, antialiased), centre crop, CLIP's mean and standard deviation.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, final

from pydantic import Field, field_validator

from bench.base.errors import BenchError
from bench.base.lazy import torch
from bench.base.strict import Strict
from bench.data.need import PROCESSOR_PATTERNS, Need, check_source
from bench.engine.chunks import in_chunks
from rewards.shared import compat
from rewards.shared.checkpoint import (
    CHUNK,
    HALF,
    Dtype,
    HashTokenizer,
    assign,
    check_vocabulary,
    fill_random,
    read_state,
    read_tokenizer,
)
from rewards.shared.checkpoint_reward import PINNED, CheckpointConfig, CheckpointReward
from rewards.shared.clip_image import Preprocessor
from rewards.shared.passes import HalfPass

FILE, MED_CONFIG = "ImageReward.pt", "med_config.json"
RANDOM = "random:BLIP-ViT-L-16"
MAX_TOKENS = 35
BERT: dict[str, Any] = {  # what med_config.json says, for random weights
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "add_type_embeddings": False,
    "vocab_size": 30524,
    "encoder_width": 768,
    "add_cross_attention": True,
}


class ImageRewardConfig(CheckpointConfig):
    """Where the weights and BERT's vocabulary are."""

    random_source: ClassVar[str] = RANDOM
    random_sources: ClassVar[tuple[str, ...]] = (RANDOM,)
    packages: ClassVar[tuple[str, ...]] = ("ImageReward",)

    source: str = Field(
        default="hub:THUDM/ImageReward", description=f"`hub:org/name`, `path:directory` or `{RANDOM}`"
    )
    path: Path | None = Field(default=None, description=f"local directory with {FILE} and {MED_CONFIG}")
    tokenizer: str = Field(
        default="hub:google-bert/bert-base-uncased",
        description="BERT's vocabulary: `hub:org/name` or `path:directory`",
    )
    dtype: Dtype = Field(default="half", description=f"{HALF}; the MLP is float32")
    chunk: int = Field(default=16, ge=1, description=CHUNK)

    @field_validator("tokenizer")
    @classmethod
    def _is_a_place(cls, value: str) -> str | None:
        return check_source(value, ("hub", "path"))

    def needs(self, name: str, section: str) -> tuple[Need, ...]:
        """The weights with their config, then the vocabulary; nothing for random weights."""
        if self.random:
            return ()
        weights = self.checkpoint(name, section, files=(FILE, MED_CONFIG), gigabytes=1.79)
        called, setting, pinned = f"{name} tokenizer", f"{section}.tokenizer", PINNED.get(self.tokenizer)
        return weights, Need(
            called, self.tokenizer, setting, None, pinned, PROCESSOR_PATTERNS, gigabytes=0.001
        )


@final
class ImageRewardReward(CheckpointReward):
    """ImageReward's score. Differentiable in the image; the model is frozen."""

    name: ClassVar[str] = "imagereward"
    parameters: ClassVar[int] = 447_000_000  # by its file's size
    Config: ClassVar[type[Strict]] = ImageRewardConfig
    scale: ClassVar[str] = "ImageReward: 0 average, 1 a standard deviation better; usually -2 … 2"

    def __init__(self, config: ImageRewardConfig, device: torch.device) -> None:
        """Loads the weights, downloading them if need be. Raises BenchError."""
        compat.image_reward()  # a package that is not there is named before anything is fetched
        super().__init__(config, device)
        self.model.mlp.float()
        self.model.device = device  # where the package puts its attention masks
        self.preprocessor = Preprocessor(torchvision_crop=True)

    def _random(self) -> Any:
        words = (1000, 30522)
        self.tokenizer: Any = HashTokenizer(101, 102, pad=0, words=words, max_length=MAX_TOKENS)
        with tempfile.TemporaryDirectory() as folder:
            med_config = Path(folder) / MED_CONFIG
            med_config.write_text(json.dumps(BERT))
            model = compat.build_image_reward(med_config, self.tokenizer)
        return fill_random(model, torch.float32, RANDOM)

    def _read(self, *places: Path) -> Any:
        from transformers import BertTokenizer

        weights, vocabulary = places
        self.tokenizer = read_tokenizer(BertTokenizer, vocabulary, "imagereward")
        self.tokenizer.add_tokens(["[DEC]", "[ENC]"], special_tokens=True)  # in the package's order
        state = read_state(weights / FILE)
        model = _build(weights / MED_CONFIG, self.tokenizer)
        assign(model, state, weights / FILE, extras=True)  # as the package does
        words = model.blip.text_encoder.config.vocab_size
        check_vocabulary(self.tokenizer, words, vocabulary, "imagereward")
        return model

    def _scores(self, media: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        return in_chunks(lambda part: self._chunk(media[part], prompts[part]), len(media), self.chunk)

    def _chunk(self, media: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        words = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(self.device)
        half = HalfPass(self.dtype)
        pixels = half.enter(self.preprocessor(media))
        mlp = self.model.mlp.register_forward_pre_hook(lambda _, inputs: (half.leave(inputs[0]),))
        with mlp:  # until the pass is over
            return self.model.score_gard(words["input_ids"], words["attention_mask"], pixels)[:, 0]


def _build(med_config: Path, tokenizer: Any) -> Any:
    try:
        return compat.build_image_reward(med_config, tokenizer)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{med_config}: cannot be used as ImageReward's config: {error}") from error
