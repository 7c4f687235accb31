"""What rewards by a frozen network from a checkpoint share: settings, loading, and scoring in chunks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from bench.base.lazy import torch
from bench.base.strict import Strict
from bench.data.need import Need, check_source
from bench.data.sources import locate
from bench.engine.chunks import in_chunks
from bench.engine.reward import Reward
from rewards.shared.checkpoint import CHUNK, HALF, Dtype, freeze, torch_dtype
from rewards.shared.checks import check_pairs, check_videos

# Commits of repositories on the hub that are taken unless `revision` says another.
PINNED = {
    "hub:google-bert/bert-base-uncased": "86b5e0934494bd15c9632b12f734a8a67f723594",
    "hub:laion/CLIP-ViT-H-14-laion2B-s32B-b79K": "1c2b8495b28150b8a4922ee1c8edee224c284c0c",
    "hub:openai/clip-vit-large-patch14": "32bd64288804d66eefd0ccbe215aa642df71cc41",
    "hub:xswu/HPSv2": "697403c78157020a1ae59d23f111aa58ced35b0a",
    "hub:yuvalkirstain/PickScore_v1": "a4e4367c6dfa7288a00c550414478f865b875800",
}


class CheckpointConfig(Strict):
    """Where the checkpoint is, and how it runs."""

    kinds: ClassVar[tuple[str, ...]] = ("hub", "path", "random")  # of sources
    random_sources: ClassVar[tuple[str, ...]]  # sources that are random numbers
    gigabytes: ClassVar[Mapping[str, float]] = {}  # of known sources

    source: str = Field(description="`hub:org/name`, `path:directory` or `random:…`")
    path: Path | None = Field(
        default=None, description="local directory with the checkpoint, instead of source"
    )
    revision: str | None = Field(
        default=None, description="branch, tag or commit of a hub source; null: a known one's pinned commit"
    )
    dtype: Dtype = Field(default="half", description=HALF)
    chunk: int = Field(default=8, ge=1, description=CHUNK)

    @field_validator("source")
    @classmethod
    def _is_a_source(cls, value: str) -> str:
        check_source(value, cls.kinds)
        if value.startswith("random:") and value not in cls.random_sources:
            raise ValueError(f"{value!r} is none of {', '.join(cls.random_sources)}")
        return value

    @property
    def random(self) -> bool:
        """Whether the weights are random numbers."""
        return self.path is None and self.source in self.random_sources

    @abstractmethod
    def needs(self, name: str, section: str) -> tuple[Need, ...]:
        """The files that cannot be done without; none for random weights. See `bench.data.need`."""

    def checkpoint(self, name: str, section: str, **about: Any) -> Need:
        """The checkpoint itself. about: fields of `Need`, over what is known of the source."""
        size = self.gigabytes.get(self.source) if self.path is None else None
        revision = self.revision or PINNED.get(self.source)
        known: dict[str, Any] = {"revision": revision, "gigabytes": size}
        return Need(name, self.source, f"{section}.path", self.path, **(known | about))


class NetworkConfig(CheckpointConfig):
    """Settings of a reward that is one checkpoint in transformers' format."""

    def needs(self, name: str, section: str) -> tuple[Need, ...]:
        """The checkpoint; nothing for random weights."""
        return () if self.random else (self.checkpoint(name, section),)


class CheckpointReward(Reward):
    """A frozen network, read from a checkpoint or filled with random numbers, and what is made of its output.

    Its `name` stands for it in messages, and in what `--set` calls its settings.
    """

    differentiable: ClassVar[bool] = True

    def __init__(self, config: Any, device: torch.device) -> None:
        """Loads the checkpoint, downloading it if need be. Raises BenchError.

        config: settings such as `CheckpointConfig`.
        """
        self.config, self.device, self.chunk = config, device, config.chunk
        self.dtype = torch_dtype(config.dtype, device)
        if config.random:
            model = self._random()
        else:
            model = self._read(*map(locate, config.needs(f"reward {self.name}", self.name)))
        self.model: Any = freeze(model.to(self.dtype), device)

    @abstractmethod
    def _random(self) -> Any:
        """The network on the CPU with random numbers, which depend on their source's name alone."""

    @abstractmethod
    def _read(self, *places: Path) -> Any:
        """The network on the CPU. places: where the files of `needs` are. Raises BenchError."""

    @abstractmethod
    def _scores(self, media: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Scores [B] of what `score` has checked."""

    def score(self, media: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Scores [B], float32 (float64 for a float64 model), of images [B, 3, H, W] in [0, 1], or of videos
        [B, F, 3, H, W] where `media` says so. Raises BenchError."""
        check = check_videos if self.media == "video" else check_pairs
        check(media, prompts, self.name)
        return self._scores(media, prompts)

    def _in_chunks(self, run: Callable[[torch.Tensor], torch.Tensor], media: torch.Tensor) -> torch.Tensor:
        return in_chunks(lambda part: run(media[part]), len(media), self.chunk)


class TwoTowers(CheckpointReward):
    """A network that embeds pictures and texts in one space."""

    def __init__(self, config: Any, device: torch.device) -> None:
        """Loads the checkpoint, downloading it if need be. Raises BenchError."""
        super().__init__(config, device)
        self._texts: dict[str, torch.Tensor] = {}

    @abstractmethod
    def _image(self, media: torch.Tensor) -> torch.Tensor:
        """Unit-norm embeddings [B, D] of a chunk of images."""

    @abstractmethod
    def _text(self, prompt: str) -> torch.Tensor:
        """[D]. Each prompt is embedded alone: companions do not change even the last bit."""

    def image_features(self, media: torch.Tensor) -> torch.Tensor:
        """Unit-norm embeddings [B, D] of images [B, 3, H, W] in [0, 1], differentiable."""
        return self._in_chunks(self._image, media)

    def text_features(self, prompts: Sequence[str]) -> torch.Tensor:
        """Unit-norm embeddings [B, D], constants without gradient, each prompt's computed once."""
        for prompt in prompts:
            if prompt not in self._texts:
                self._texts[prompt] = self._text(prompt)
        return torch.stack([self._texts[prompt] for prompt in prompts])

    def cosine(self, media: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """cos(image, text) [B], differentiable in the image."""
        return (self.image_features(media) * self.text_features(prompts)).sum(dim=1)
