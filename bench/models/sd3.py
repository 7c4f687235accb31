"""Stable Diffusion 3 and 3.5 as reverse chains: a transformer over patches and words predicts a velocity.

Esser et al. 2024 (arXiv:2403.03206). What is diffusers' StableDiffusion3Pipeline there runs here, with its
scheduler's noise levels and without skipped layers; the T5 encoder may be missing, as it may there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor
from transformers import CLIPTextModelWithProjection, T5EncoderModel

from bench.base.errors import BenchError
from bench.models.blueprints import Blueprint, Files
from bench.models.config import ModelConfig
from bench.models.flow import flow_solver
from bench.models.latent_chain import LatentChain
from bench.models.pipeline_settings import check_channels, check_width, setting
from bench.models.random_weights import read_json
from bench.models.repeated_token import repeat_last
from bench.models.text import TextEncoder, Texts

if TYPE_CHECKING:
    from bench.models.pipeline import Pipeline

T5_TOKENS = 256  # of a text; where there is no T5, one of zeros counts for all. The pipeline's own default


@final
class Sd3Texts(TextEncoder):
    """Two CLIP encoders side by side, widened by zeros, and T5's states below them; CLIP's pooled ones."""

    def __init__(self, pipeline: Any, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        """See TextEncoder."""
        self._length = config.t5_tokens or T5_TOKENS
        encoders = [
            (pipeline.tokenizer, pipeline.text_encoder),
            (pipeline.tokenizer_2, pipeline.text_encoder_2),
        ]
        self._t5 = pipeline.text_encoder_3 is not None
        if self._t5:
            encoders.append((pipeline.tokenizer_3, pipeline.text_encoder_3))
        self._width: int = pipeline.transformer.config["joint_attention_dim"]
        super().__init__(encoders, device, dtype)

    def _encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        first = self._run(0, texts, output_hidden_states=True)
        second = self._run(1, texts, output_hidden_states=True)
        clip = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        clip = torch.nn.functional.pad(clip, (0, self._width - clip.shape[-1]))
        t5 = self._run(2, texts, self._length)[0] if self._t5 else clip.new_zeros(len(clip), 1, self._width)
        return torch.cat([clip, t5], dim=1), torch.cat([first.text_embeds, second.text_embeds], dim=-1)


def check_transformer(files: Files) -> None:
    """Raises BenchError, naming the file and the setting, for a transformer that does not fit the decoder or
    the text encoders."""
    file = files.network / "config.json"
    settings = read_json(file)
    check_channels(file, settings, read_json(files.directory / "vae" / "config.json"), default=16)
    encoders = {
        name: read_json(files.directory / name / "config.json")
        for name in files.parts
        if name.startswith("text")
    }
    pooled = sum(
        setting(encoders[name], "projection_dim", 512) for name in ("text_encoder", "text_encoder_2")
    )
    check_width(file, "pooled_projection_dim", setting(settings, "pooled_projection_dim", 2048), pooled)
    if "text_encoder_3" in encoders:
        width = setting(encoders["text_encoder_3"], "d_model", 512)
        check_width(file, "joint_attention_dim", setting(settings, "joint_attention_dim", 4096), width)


BLUEPRINTS = {
    "StableDiffusion3Pipeline": Blueprint(
        network="transformer",
        parts={
            "transformer": SD3Transformer2DModel,
            "vae": AutoencoderKL,
            "text_encoder": CLIPTextModelWithProjection,
            "text_encoder_2": CLIPTextModelWithProjection,
            "text_encoder_3": T5EncoderModel,
        },
        text=Sd3Texts,
        solver=flow_solver,
        check=check_transformer,
        left_out={"image_encoder": None, "feature_extractor": None},
        optional=frozenset({"text_encoder_3"}),
        shifted=True,
    )
}


@final
class Sd3Chain(LatentChain):
    """The reverse chain of a Stable Diffusion 3 pipeline: latents [B, C, h, w], images [B, 3, H, W]."""

    name: ClassVar[str] = "sd3"
    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusion3Pipeline",)
    usual: ClassVar[str] = "--set model.solver=flow_sde"

    def __init__(self, pipeline: Pipeline, config: ModelConfig, device: torch.device) -> None:
        """See LatentChain."""
        if pipeline.text_encoder_3 is None:
            repeat_last(pipeline.transformer, config.t5_tokens or T5_TOKENS)
        super().__init__(pipeline, config, device)

    def _latent_shape(self) -> tuple[int, ...]:
        shape = super()._latent_shape()
        most = self.network.config["pos_embed_max_size"] * self._patch
        if max(shape[1:]) > most:
            raise BenchError(
                f"model.resolution: this model knows places for {most * self.latent_pixels} "
                "pixels per side, and no more"
            )
        return shape

    def _evaluate(self, x: Tensor, i: int, texts: Texts) -> Tensor:
        return self._run(
            hidden_states=x,
            timestep=self.solver.timesteps[i].expand(len(x)),
            encoder_hidden_states=texts.states,
            pooled_projections=texts.pooled,
        ).sample.float()
