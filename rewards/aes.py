"""LAION aesthetics predictor v2: how much people like the look of a picture, 1 to 10. Prompts play no part.

Source: Schuhmann 2022, christophschuhmann/improved-aesthetic-predictor, weights sac+logos+ava1-l14-linearMSE:
five linear layers without activations (dropout between them is off) on the L2-normalised picture embedding of
OpenAI's CLIP ViT-L/14. VBench's aesthetic_quality is another file, sa_0_4_vit_l_14_linear.pth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, final

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from bench.base.errors import BenchError
from bench.base.strict import Strict
from bench.data.need import Need, check_source
from bench.data.sources import locate
from bench.engine.reward import Reward
from rewards.clip import ClipConfig, ClipReward
from rewards.shared.checkpoint import CHUNK, HALF, Dtype, assign, fill_random, freeze, read_state
from rewards.shared.pairs import check_pairs

FILE = "sac+logos+ava1-l14-linearMSE.pth"
URL = f"url:https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/{FILE}"
SHA256 = "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"
RANDOM = "random:ViT-L-14"
WIDTH = 768  # of the embedding of OpenAI's ViT-L/14


class AesConfig(Strict):
    """Where the head and the CLIP model below it are."""

    random_source: ClassVar[str] = RANDOM

    source: str = Field(
        default=URL,
        description=f"of the head: `url:…/{FILE}`, `hub:org/name`, `path:directory`; `{RANDOM}`: both random",
    )
    path: Path | None = Field(default=None, description=f"local directory with {FILE}, instead of source")
    clip: str = Field(
        default="hub:openai/clip-vit-large-patch14",
        description="the CLIP model: `hub:org/name`, `path:directory` or `random:ViT-L-14`",
    )
    revision: str | None = Field(default=None, description="branch, tag or commit of the CLIP model's source")
    dtype: Dtype = Field(default="half", description=f"{HALF}; the head is float32")
    chunk: int = Field(default=16, ge=1, description=CHUNK)

    @field_validator("source", "clip")
    @classmethod
    def _is_a_source(cls, value: str) -> str:
        check_source(value, ("url", "hub", "path", "random"))
        if value.startswith("random:") and value != RANDOM:
            raise ValueError(f"{value!r} is not {RANDOM}")
        return value

    @property
    def random(self) -> bool:
        """Whether head and CLIP model are random numbers."""
        return self.path is None and self.source == RANDOM

    @property
    def below(self) -> ClipConfig:
        """Settings of the CLIP model."""
        source = RANDOM if self.random else self.clip
        return ClipConfig(source=source, revision=self.revision, dtype=self.dtype, chunk=self.chunk)

    def needs(self, name: str, section: str) -> tuple[Need, ...]:
        """The head, then the CLIP model; nothing for random weights."""
        if self.random:
            return ()
        sha256 = SHA256 if self.source == URL else None
        head = Need(
            name, self.source, f"{section}.path", self.path, files=(FILE,), sha256=sha256, gigabytes=0.004
        )
        clip = self.below.needs(f"{name} clip", section)
        return head, *(replace(need, setting=f"{section}.clip") for need in clip)


@final
class AesReward(Reward):
    """LAION's aesthetic score. Differentiable in the image; the models are frozen."""

    name: ClassVar[str] = "aes"
    parameters: ClassVar[int] = 428_537_538
    Config: ClassVar[type[Strict]] = AesConfig
    differentiable: ClassVar[bool] = True
    scale: ClassVar[str] = "LAION aesthetics v2, about 1 … 10, usually 4 … 7"

    def __init__(self, config: AesConfig, device: torch.device) -> None:
        """Loads head and CLIP model, downloading them if need be. Raises BenchError."""
        head, below = Head(), config.below
        if config.random:
            fill_random(head, torch.float32, FILE)
        else:
            need, *clip = config.needs("reward aes", "aes")
            path = locate(need) / FILE
            assign(head, read_state(path), path)
            below = below.model_copy(update={"path": locate(clip[0])} if clip else {})
        self.head = freeze(head.float(), device)
        self.clip = ClipReward(below, device, "aes")
        width: int = self.clip.model.config.projection_dim
        if width != WIDTH:
            raise BenchError(
                f"aes.clip: the head takes {WIDTH} numbers for a picture, as CLIP ViT-L/14 gives them; "
                f"{below.path or below.source} gives {width}"
            )
        openai = {"torchvision_crop": True}  # LAION's code takes the path of OpenAI's package
        self.clip.preprocessor = self.clip.preprocessor.model_copy(update=openai)

    def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B] of images [B, 3, H, W] in [0, 1], float32. Prompts play no part."""
        check_pairs(media, prompts, "aes")
        return self.head(self.image_features(media).float())[:, 0]

    def image_features(self, media: Tensor) -> Tensor:
        """Unit-norm embeddings [B, D] of images [B, 3, H, W] in [0, 1], differentiable."""
        return self.clip.image_features(media)


class Head(nn.Module):
    """Embeddings [B, 768] → scores [B, 1]; the names of its weights are the published file's."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(WIDTH, 1024),
            nn.Dropout(0.2),
            nn.Linear(1024, 128),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """[B, 1]."""
        return self.layers(features)
