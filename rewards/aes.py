"""LAION aesthetics predictor v2: how much people like the look of a picture, 1 to 10. Prompts play no part.

Source: Schuhmann 2022, christophschuhmann/improved-aesthetic-predictor, weights sac+logos+ava1-l14-linearMSE:
five linear layers without activations (dropout between them is off) on the L2-normalised picture embedding of
OpenAI's CLIP ViT-L/14. VBench's aesthetic_quality is another file, sa_0_4_vit_l_14_linear.pth.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, final

from pydantic import Field, field_validator

from bench.base.errors import BenchError
from bench.base.lazy import torch
from bench.base.strict import Strict
from bench.data.need import Need
from rewards.shared.checkpoint import CHUNK, HALF, Dtype, assign, fill_random, freeze, read_state
from rewards.shared.checkpoint_reward import CheckpointConfig
from rewards.shared.clip_towers import ClipConfig, ClipTowers

FILE = "sac+logos+ava1-l14-linearMSE.pth"
URL = f"url:https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/{FILE}"
SHA256 = "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"
RANDOM = "random:ViT-L-14"
WIDTH = 768  # of the embedding of OpenAI's ViT-L/14


class AesConfig(CheckpointConfig):
    """Where the head and the CLIP model below it are."""

    kinds: ClassVar[tuple[str, ...]] = ("url", "hub", "path", "random")
    random_source: ClassVar[str] = RANDOM
    random_sources: ClassVar[tuple[str, ...]] = (RANDOM,)

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

    @field_validator("clip")
    @classmethod
    def _is_a_clip(cls, value: str) -> str:
        return cls._is_a_source(value)

    @property
    def below(self) -> ClipConfig:
        """Settings of the CLIP model."""
        return ClipConfig(source=RANDOM if self.random else self.clip, revision=self.revision)

    def needs(self, name: str, section: str) -> tuple[Need, ...]:
        """The head, then the CLIP model; nothing for random weights."""
        if self.random:
            return ()
        sha256 = SHA256 if self.source == URL else None
        head = self.checkpoint(name, section, revision=None, files=(FILE,), sha256=sha256, gigabytes=0.004)
        clip = self.below.needs(f"{name} clip", section)
        return head, *(replace(need, setting=f"{section}.clip") for need in clip)


@final
class AesReward(ClipTowers):
    """LAION's aesthetic score. Differentiable in the image; the models are frozen."""

    name: ClassVar[str] = "aes"
    parameters: ClassVar[int] = 428_544_482
    Config: ClassVar[type[Strict]] = AesConfig
    scale: ClassVar[str] = "LAION aesthetics v2, about 1 … 10, usually 4 … 7"

    def __init__(self, config: AesConfig, device: torch.device) -> None:
        """Loads head and CLIP model, downloading them if need be. Raises BenchError."""
        self.head = new_head()
        super().__init__(config, device)
        self.head = freeze(self.head.float(), device)
        openai = {"torchvision_crop": True}  # LAION's code takes the path of OpenAI's package
        self.preprocessor = self.preprocessor.model_copy(update=openai)

    def _random(self) -> Any:
        fill_random(self.head, torch.float32, FILE)
        return self._random_clip(RANDOM)

    def _read(self, *places: Path) -> Any:
        path, *clip = places[0] / FILE, *places[1:]
        assign(self.head, read_state(path), path)
        model = self._read_clip(clip[0], clip[0]) if clip else self._random_clip(self.config.clip)
        width: int = model.config.projection_dim
        if width != WIDTH:
            raise BenchError(
                f"aes.clip: the head takes {WIDTH} numbers for a picture, as CLIP ViT-L/14 gives them; "
                f"{clip[0] if clip else self.config.clip} gives {width}"
            )
        return model

    def _scores(self, media: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        return self.head(self.image_features(media).float())[:, 0]


def new_head() -> torch.nn.Module:
    """Embeddings [B, 768] → scores [B, 1]; the names of its weights are the published file's."""
    nn = torch.nn
    layers = nn.Sequential(
        nn.Linear(WIDTH, 1024),
        nn.Dropout(0.2),
        nn.Linear(1024, 128),
        nn.Dropout(0.2),
        nn.Linear(128, 64),
        nn.Dropout(0.1),
        nn.Linear(64, 16),
        nn.Linear(16, 1),
    )
    return nn.Sequential(OrderedDict(layers=layers))
