"""Text-to-image models in Stable Diffusion format as reverse chains: SD 1.x, 2.x and XL."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, final

import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.models.config import ModelConfig
from bench.models.latent_chain import LatentChain
from bench.models.pipeline import load_pipeline, network_dtype
from bench.models.text import Texts

if TYPE_CHECKING:
    from bench.models.pipeline import Pipeline


@final
class ImageChain(LatentChain):
    """The reverse chain of a Stable Diffusion pipeline: latents [B, C, h, w], images [B, 3, H, W]."""

    name: ClassVar[str] = "image"

    @classmethod
    def load(cls, config: ModelConfig, device: torch.device) -> ImageChain:
        """The chain of the pipeline in config.path or of a `random:` source. Raises BenchError."""
        return cls(load_pipeline(config, network_dtype(config, device)), config, device)

    def __init__(self, pipeline: Pipeline, config: ModelConfig, device: torch.device) -> None:
        """See LatentChain. Raises BenchError if the resolution does not fit."""
        super().__init__(pipeline, config, device)
        self.latent_shape = (self.unet.config["in_channels"], *self._latent_size())
        pixels = [float(n * self.pipeline.vae_scale_factor) for n in self.latent_shape[-2:]]
        self._sizes = torch.tensor([*pixels, 0.0, 0.0, *pixels], device=device)

    def decode(self, x: Tensor, frames: Tensor | None = None) -> Tensor:
        """Images [B, 3, H, W]; they have no frames to choose from."""
        if frames is not None:
            raise BenchError("frames can be chosen of videos, and this model makes pictures")
        return self._decoded(x)

    def _checkpoint_unet(self) -> None:
        self.unet.enable_gradient_checkpointing()

    def _unet(self, x: Tensor, i: int, texts: Texts) -> Tensor:
        added = None
        if texts.pooled is not None:  # SDXL: size of the original, corner of the crop, target size
            added = {"text_embeds": texts.pooled, "time_ids": self._sizes.expand(len(x), -1)}
        t = self.grid.timesteps[i]
        return self._run(x, t, texts.states, added_cond_kwargs=added).sample.float()
