"""Text-to-image models in Stable Diffusion format as reverse chains: SD 1.x, 2.x and XL."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, final

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from bench.models.blueprints import Blueprint
from bench.models.config import ModelConfig
from bench.models.diffusion import diffusion_solver
from bench.models.latent_chain import LatentChain
from bench.models.text import ClipTexts, Texts
from bench.models.unet_settings import check_unet

if TYPE_CHECKING:
    from bench.models.pipeline import Pipeline

_PARTS: dict[str, type[nn.Module]] = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
}
BLUEPRINTS = {
    "StableDiffusionPipeline": Blueprint(
        network="unet",
        parts=_PARTS,
        text=ClipTexts,
        solver=diffusion_solver,
        check=check_unet,
        left_out={
            "safety_checker": None,
            "feature_extractor": None,
            "image_encoder": None,
            "requires_safety_checker": False,
        },
    ),
    "StableDiffusionXLPipeline": Blueprint(
        network="unet",
        parts=_PARTS | {"text_encoder_2": CLIPTextModelWithProjection},
        text=ClipTexts,
        solver=diffusion_solver,
        check=check_unet,
        left_out={"feature_extractor": None, "image_encoder": None, "add_watermarker": False},
        upcast=True,
    ),
}


@final
class ImageChain(LatentChain):
    """The reverse chain of a Stable Diffusion pipeline: latents [B, C, h, w], images [B, 3, H, W]."""

    name: ClassVar[str] = "image"
    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")

    def __init__(self, pipeline: Pipeline, config: ModelConfig, device: torch.device) -> None:
        """See LatentChain."""
        super().__init__(pipeline, config, device)
        pixels = [float(side) for side in self.pixels]
        self._sizes = torch.tensor([*pixels, 0.0, 0.0, *pixels], device=device)

    def _evaluate(self, x: Tensor, i: int, texts: Texts) -> Tensor:
        added = None
        if texts.pooled is not None:  # SDXL: size of the original, corner of the crop, target size
            added = {"text_embeds": texts.pooled, "time_ids": self._sizes.expand(len(x), -1)}
        t = self.solver.timesteps[i]
        return self._run(x, t, texts.states, added_cond_kwargs=added).sample.float()
