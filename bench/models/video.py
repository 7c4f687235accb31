"""Text-to-video models as reverse chains: diffusers' TextToVideoSDPipeline, a UNet over frames and pixels.

ModelScope (Wang et al. 2023, arXiv:2308.06571), ZeroScope, and VideoCrafter2 (Chen et al. 2024,
arXiv:2401.09047) in the same architecture. The UNet folds frames into the batch for layers in space, and
pixels for layers in time; all frames of a video are denoised together, and decoded one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, final

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTextModel

from bench.models.blueprints import Blueprint
from bench.models.config import ModelConfig
from bench.models.diffusion import diffusion_solver
from bench.models.latent_chain import LatentChain
from bench.models.text import ClipTexts, Texts
from bench.models.unet3d import Unet3D, checkpoint_layers, tell_fps
from bench.models.unet_settings import check_unet

if TYPE_CHECKING:
    from bench.models.pipeline import Pipeline

BLUEPRINTS = {
    "TextToVideoSDPipeline": Blueprint(
        network="unet",
        parts={"unet": Unet3D, "vae": AutoencoderKL, "text_encoder": CLIPTextModel},
        text=ClipTexts,
        solver=diffusion_solver,
        check=check_unet,
    )
}


@final
class VideoChain(LatentChain):
    """The reverse chain of a text-to-video pipeline: latents [B, C, F, h, w], videos [B, F, 3, H, W]."""

    name: ClassVar[str] = "video"
    pipelines: ClassVar[tuple[str, ...]] = ("TextToVideoSDPipeline",)
    usual: ClassVar[str] = "--set model.frames=16"

    def __init__(self, pipeline: Pipeline, config: ModelConfig, device: torch.device) -> None:
        """See LatentChain. config.frames: F, checked to be there. Raises BenchError."""
        tell_fps(pipeline.unet, config.fps)
        self.frames = config.frames or 1
        super().__init__(pipeline, config, device)

    def decode(self, x: Tensor, frames: Tensor | None = None) -> Tensor:
        """Videos [B, F, 3, H, W], or with frames [B, k] only those of each, [B, k, 3, H, W]."""
        by_frame = x.transpose(1, 2)
        if frames is not None:
            by_frame = by_frame[torch.arange(len(x), device=x.device)[:, None], frames]
        pictures = self._decoded(by_frame.flatten(0, 1))
        return pictures.unflatten(0, by_frame.shape[:2])

    def _latent_shape(self) -> tuple[int, ...]:
        return (self.network.config["in_channels"], self.frames, *self._latent_size())

    def _checkpoint_network(self) -> None:
        checkpoint_layers(self.network)

    def _evaluate(self, x: Tensor, i: int, texts: Texts) -> Tensor:
        return self._run(x, self.solver.timesteps[i], texts.states).sample.float()
