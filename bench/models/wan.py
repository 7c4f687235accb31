"""Wan's text-to-video models as reverse chains: a transformer over patches of all frames predicts a velocity.

Team Wan 2025 (arXiv:2503.20314). What is diffusers' WanPipeline there runs here, with its scheduler's noise
levels, for models of one transformer (2.1). The decoder makes one picture of the first latent frame and four
of each later one, and remembers what was before: latents of F pictures have 1 + (F - 1) / 4 frames.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import UMT5EncoderModel

from bench.base.errors import BenchError
from bench.models.blueprints import Blueprint, Files
from bench.models.config import ModelConfig, SolverName
from bench.models.flow import FILE, FlowSolver, flow_solver, solver_on
from bench.models.latent_chain import LatentChain
from bench.models.pipeline_settings import check_width, setting
from bench.models.random_weights import read_json
from bench.models.text import TextEncoder, Texts

if TYPE_CHECKING:
    from bench.models.pipeline import Pipeline

T5_TOKENS = 512  # of a text; the pipeline's own default
LEVELS: dict[str, Any] = {  # what UniPC's settings have to be for its noise levels to be these
    "use_flow_sigmas": True,
    "prediction_type": "flow_prediction",
    "final_sigmas_type": "zero",
    "use_dynamic_shifting": False,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "thresholding": False,
}


@final
class WanTexts(TextEncoder):
    """T5's states of a text's own tokens, and zeros up to a fixed number."""

    def __init__(self, pipeline: Any, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        """See TextEncoder."""
        self._length = config.t5_tokens or T5_TOKENS
        super().__init__([(pipeline.tokenizer, pipeline.text_encoder)], device, dtype)

    def _encode(self, texts: Sequence[str]) -> tuple[Tensor, None]:
        ((tokenizer, encoder),) = self._encoders
        plain = [" ".join(html.unescape(html.unescape(text)).split()) for text in texts]
        length = self._length
        found = tokenizer(
            plain, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        mask = found.attention_mask.to(self.device)
        states = encoder(found.input_ids.to(self.device), mask).last_hidden_state
        return states * mask[:, :, None].to(states.dtype), None


def wan_solver(settings: dict[str, Any], name: SolverName, steps: int, tokens: int) -> FlowSolver:
    """A flow solver on the levels of the model's UniPC scheduler, or of a FlowMatchEulerDiscreteScheduler.

    Raises BenchError as `flow_solver` does.
    """
    if settings["_class_name"] != UniPCMultistepScheduler.__name__:
        if settings.get("use_dynamic_shifting"):
            raise BenchError(f"{FILE}: use_dynamic_shifting is true, and this pipeline does not shift so")
        return flow_solver(settings, name, steps, tokens)
    try:
        scheduler: Any = UniPCMultistepScheduler.from_config(settings)
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        raise BenchError(f"{FILE}: {error}") from error
    for key, wanted in LEVELS.items():
        if scheduler.config[key] not in (wanted, None):
            raise BenchError(f"{FILE}: {key} is {scheduler.config[key]}; flow matching needs {wanted} there")
    scheduler.set_timesteps(steps)
    return solver_on(scheduler, name, steps)


def check_transformer(files: Files) -> None:
    """Raises BenchError, naming the file and the setting, for a transformer that is given a picture or works
    with a second one, or that does not fit the decoder or the text encoder."""
    index, file = files.directory / "model_index.json", files.network / "config.json"
    settings, vae = read_json(file), files.directory / "vae" / "config.json"
    channels = setting(read_json(vae), "z_dim", 16)
    for place, values, key, wanted in (
        (index, read_json(index), "transformer_2", [None, None]),
        (index, read_json(index), "boundary_ratio", None),
        (index, read_json(index), "expand_timesteps", False),
        (vae, read_json(vae), "patch_size", None),
        (file, settings, "image_dim", None),
        (file, settings, "added_kv_proj_dim", None),
        (file, settings, "in_channels", channels),
        (file, settings, "out_channels", channels),
    ):
        if (found := setting(values, key, wanted)) != wanted:
            raise BenchError(
                f"{place}: {key} is {found}, and only {wanted} is supported here: text-to-video models of "
                "one transformer, as Wan 2.1 has them"
            )
    width = setting(read_json(files.directory / "text_encoder" / "config.json"), "d_model", 512)
    check_width(file, "text_dim", setting(settings, "text_dim", 4096), width)


BLUEPRINTS = {
    "WanPipeline": Blueprint(
        network="transformer",
        parts={
            "transformer": WanTransformer3DModel,
            "vae": AutoencoderKLWan,
            "text_encoder": UMT5EncoderModel,
        },
        text=WanTexts,
        solver=wan_solver,
        check=check_transformer,
        left_out={"transformer_2": None},
    )
}


@final
class WanChain(LatentChain):
    """The reverse chain of a Wan pipeline: latents [B, C, 1 + (F - 1) / 4, h, w], videos [B, F, 3, H, W]."""

    name: ClassVar[str] = "wan"
    pipelines: ClassVar[tuple[str, ...]] = ("WanPipeline",)
    usual: ClassVar[str] = (
        "--set model.solver=flow_sde --set model.frames=33 --set 'model.resolution=[240, 416]'"
    )

    def __init__(self, pipeline: Pipeline, config: ModelConfig, device: torch.device) -> None:
        """See LatentChain. config.frames: F, checked to be there. Raises BenchError."""
        if config.decode_chunk is not None:
            raise BenchError(
                "model.decode_chunk: this model's decoder takes one frame of latents at a time, as it is"
            )
        if config.fps is not None:
            raise BenchError("model.fps: this model is not told frames per second: --set model.fps=null")
        self.frames = config.frames or 1
        super().__init__(pipeline, config, device)
        layers = sum(isinstance(layer, WanCausalConv3d) for layer in self.vae.decoder.modules())
        self._nothing: list[Any] = [None] * layers  # what the decoder remembers before the first frame
        self._scales = tuple(
            torch.tensor(self.vae.config[key], device=device)[:, None, None, None]
            for key in ("latents_mean", "latents_std")
        )

    def decode(self, x: Tensor, frames: Tensor | None = None) -> Tensor:
        """Videos [B, F, 3, H, W], or with frames [B, k] only those of each, [B, k, 3, H, W].

        All are decoded, as each depends on those before. With `gradient_checkpointing` a backward pass holds
        the activations of one latent frame, and what the decoder remembers of each.
        """
        mean, std = self._scales
        latents = self.vae.post_quant_conv((x * std + mean).to(self.vae.dtype))
        pixels = torch.cat(list(self._clips(latents)), dim=2).float()
        self._check_pixels(pixels, x)
        video = (pixels / 2 + 0.5).clamp(0, 1).transpose(1, 2)
        return video if frames is None else video[torch.arange(len(x), device=x.device)[:, None], frames]

    @property
    def latent_pixels(self) -> int:
        """Pixels per side of one latent."""
        return self.pipeline.vae_scale_factor_spatial

    @property
    def _patch(self) -> int:
        return self.network.config["patch_size"][-1]

    def _latent_shape(self) -> tuple[int, ...]:
        each = self.pipeline.vae_scale_factor_temporal
        if (self.frames - 1) % each:
            raise BenchError(
                f"model.frames: {self.frames} has to be one more than a multiple of {each}, the pictures "
                f"that a frame of latents stands for: {self.frames - (self.frames - 1) % each}, for example"
            )
        channels, *size = super()._latent_shape()
        return (channels, 1 + (self.frames - 1) // each, *size)

    def _checkpoint_decoder(self) -> None:
        """`decode` sees to it: diffusers has none for this decoder."""

    def _clips(self, latents: Tensor) -> Iterator[Tensor]:
        """The pictures [B, 3, n, H, W] of each latent frame, n = 1 for the first and 4 for others."""
        again = self.config.gradient_checkpointing and torch.is_grad_enabled()
        remembered = self._nothing
        for i in range(latents.shape[2]):
            step = (latents[:, :, i : i + 1], remembered, i == 0)
            if again:
                clip, remembered = checkpoint(
                    self._clip, *step, use_reentrant=False, preserve_rng_state=False
                )
            else:
                clip, remembered = self._clip(*step)
            yield clip

    def _clip(self, latent: Tensor, before: list[Any], first: bool) -> tuple[Tensor, list[Any]]:
        remembered = list(before)  # the decoder changes it in place
        clip = self.vae.decoder(latent, feat_cache=remembered, feat_idx=[0], first_chunk=first)
        return clip, remembered

    def _evaluate(self, x: Tensor, i: int, texts: Texts) -> Tensor:
        return self._run(
            hidden_states=x,
            timestep=self.solver.timesteps[i].expand(len(x)),
            encoder_hidden_states=texts.states,
        ).sample.float()
