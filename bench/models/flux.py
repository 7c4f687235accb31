"""FLUX.1 as a reverse chain: a transformer over words and 2×2 patches of latents, which is told the guidance.

Black Forest Labs, 2024. What is diffusers' FluxPipeline there runs here, with its noise levels. Latents keep
their shape in the chain, and are packed into patches where the network is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import Tensor
from transformers import CLIPTextModel, T5EncoderModel

from bench.base.errors import BenchError
from bench.models.blueprints import Blueprint, Files
from bench.models.config import ModelConfig, SolverName
from bench.models.flow import FlowSolver, flow_solver
from bench.models.latent_chain import LatentChain
from bench.models.pipeline_settings import check_width, setting
from bench.models.random_weights import read_json
from bench.models.text import TextEncoder, Texts

if TYPE_CHECKING:
    from bench.models.pipeline import Pipeline

PATCH = 2  # latents per side of one
T5_TOKENS = 512  # of a text; the pipeline's own default


@final
class FluxTexts(TextEncoder):
    """T5's states, and CLIP's pooled ones."""

    def __init__(self, pipeline: Any, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        """See TextEncoder."""
        self._length = config.t5_tokens or T5_TOKENS
        encoders = [
            (pipeline.tokenizer, pipeline.text_encoder),
            (pipeline.tokenizer_2, pipeline.text_encoder_2),
        ]
        super().__init__(encoders, device, dtype)

    def _encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return self._run(1, texts, self._length)[0], self._run(0, texts).pooler_output


def flux_solver(settings: dict[str, Any], name: SolverName, steps: int, tokens: int) -> FlowSolver:
    """`flow_solver` on the levels 1, 1 - 1/T, …, 1/T before the shift. Raises BenchError as it does."""
    return flow_solver(settings, name, steps, tokens, np.linspace(1, 1 / steps, steps).tolist())


def check_transformer(files: Files) -> None:
    """Raises BenchError, naming the file and the setting, for a transformer that does not fit the decoder or
    the text encoders."""
    file = files.network / "config.json"
    settings = read_json(file)
    others = ("vae", "text_encoder", "text_encoder_2")
    parts = {name: read_json(files.directory / name / "config.json") for name in others}
    channels, taken = setting(parts["vae"], "latent_channels", 4), setting(settings, "in_channels", 64)
    patch = PATCH**2 * channels
    for key, found, wanted in (
        ("in_channels", taken, patch),
        ("out_channels", setting(settings, "out_channels", taken), patch),
        ("patch_size", setting(settings, "patch_size", 1), 1),
    ):
        if found != wanted:
            raise BenchError(
                f"{file}: {key} is {found}: for patches of {PATCH}×{PATCH} latents of {channels} channels, "
                f"as the decoder's are, it has to be {wanted}. Networks that are given a picture, too, are "
                "not supported here"
            )
    pooled = setting(parts["text_encoder"], "hidden_size", 512)
    check_width(file, "pooled_projection_dim", setting(settings, "pooled_projection_dim", 768), pooled)
    states = setting(parts["text_encoder_2"], "d_model", 512)
    check_width(file, "joint_attention_dim", setting(settings, "joint_attention_dim", 4096), states)


BLUEPRINTS = {
    "FluxPipeline": Blueprint(
        network="transformer",
        parts={
            "transformer": FluxTransformer2DModel,
            "vae": AutoencoderKL,
            "text_encoder": CLIPTextModel,
            "text_encoder_2": T5EncoderModel,
        },
        text=FluxTexts,
        solver=flux_solver,
        check=check_transformer,
        left_out={"image_encoder": None, "feature_extractor": None},
        shifted=True,
    )
}


def packed(x: Tensor) -> Tensor:
    """Latents [B, C, h, w] as patches [B, h/2 · w/2, 4 C], row by row."""
    patches = x.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpacked(patches: Tensor, height: int, width: int) -> Tensor:
    """The latents [B, C, height, width] of patches."""
    grid = patches.unflatten(2, (-1, PATCH, PATCH)).unflatten(1, (height // PATCH, width // PATCH))
    return grid.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


@final
class FluxChain(LatentChain):
    """The reverse chain of a FLUX.1 pipeline: latents [B, C, h, w], images [B, 3, H, W]."""

    name: ClassVar[str] = "flux"
    pipelines: ClassVar[tuple[str, ...]] = ("FluxPipeline",)
    usual: ClassVar[str] = "--set model.solver=flow_sde"

    def __init__(self, pipeline: Pipeline, config: ModelConfig, device: torch.device) -> None:
        """See LatentChain."""
        super().__init__(pipeline, config, device)
        told = self.network.config["guidance_embeds"]
        self._told = torch.tensor([config.guidance], device=device) if told else None
        rows, columns = (torch.arange(side // PATCH, device=device) for side in self.latent_shape[-2:])
        grid = torch.meshgrid(rows, columns, indexing="ij")
        self._places = torch.stack([torch.zeros_like(grid[0]), *grid], dim=-1).flatten(0, 1).float()

    @property
    def _patch(self) -> int:
        return PATCH

    def _latent_shape(self) -> tuple[int, ...]:
        return (self.network.config["in_channels"] // PATCH**2, *self._latent_size())

    def _evaluate(self, x: Tensor, i: int, texts: Texts) -> Tensor:
        out = self._run(
            hidden_states=packed(x),
            # Of thousands, in the network's dtype, as the pipeline rounds it.
            timestep=self.solver.timesteps[i].to(self.dtype).expand(len(x)) / 1000,
            guidance=None if self._told is None else self._told.expand(len(x)),
            encoder_hidden_states=texts.states,
            pooled_projections=texts.pooled,
            img_ids=self._places,
            txt_ids=self._places.new_zeros(texts.states.shape[1], 3),
        ).sample
        return unpacked(out, *x.shape[-2:]).float()
