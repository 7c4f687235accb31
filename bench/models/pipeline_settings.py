"""What the config files of a pipeline ask for, checked before its weights are read.

A part or a setting that the chains here do not know would run as if it were not there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from bench.base.errors import BenchError
from bench.models.config import ModelConfig
from bench.models.noise_levels import check_scheduler, make_grid
from bench.models.random_weights import read_json

# Settings of a UNet that is told something which these chains do not tell it.
_TOLD = {
    "time_cond_proj_dim": "the guidance scale, as distilled models are (LCM)",
    "class_embed_type": "a class",
    "num_class_embeds": "a class",
}


def check_settings(
    directory: Path, unet: Path, networks: Mapping[str, type[nn.Module]], config: ModelConfig
) -> None:
    """Raises BenchError, naming the file and the setting, for what would run and mean something else.

    directory: of the pipeline. unet: of its UNet, or of the one in its place. networks: the class that each
    part has to be of.
    """
    index = read_json(directory / "model_index.json")
    for name, cls in networks.items():
        found = index[name][1] if name in index else None
        if found not in [base.__name__ for base in cls.__mro__]:
            raise BenchError(
                f"{directory / 'model_index.json'}: {name} is a {found}; this pipeline needs a {cls.__name__}"
            )
    unet_settings = read_json(unet / "config.json")
    vae = read_json(directory / "vae" / "config.json")
    _check_unet(unet / "config.json", unet_settings, xl="text_encoder_2" in networks)
    _check_vae(directory / "vae" / "config.json", vae)
    _check_channels(unet / "config.json", unet_settings, _get(vae, "latent_channels", 4))
    _check_text(directory, unet / "config.json", unet_settings, networks)
    scheduler = read_json(directory / "scheduler" / "scheduler_config.json")
    named = {"_class_name": index["scheduler"][1] if "scheduler" in index else None}
    check_scheduler(scheduler | named)  # what it is loaded as; its own file may say otherwise
    make_grid(named | scheduler, config.solver, config.steps)


def _get(settings: dict[str, Any], key: str, default: Any = None) -> Any:
    """A setting; older files leave out what has its default."""
    return settings[key] if key in settings and settings[key] is not None else default


def _check_unet(file: Path, settings: dict[str, Any], xl: bool) -> None:
    for key, what in _TOLD.items():
        if _get(settings, key) is not None:
            raise BenchError(f"{file}: {key} is set: this UNet is told {what}, which is not supported here")
    hidden, added = _get(settings, "encoder_hid_dim_type"), _get(settings, "addition_embed_type")
    if hidden not in (None, "text_proj"):
        raise BenchError(
            f"{file}: encoder_hid_dim_type is {hidden}: this UNet is told more than a text, which is not "
            "supported here"
        )
    if added not in (("text_time",) if xl else (None, "text")):
        kind = "Stable Diffusion XL" if xl else "Stable Diffusion"
        raise BenchError(
            f"{file}: addition_embed_type is {added}: this is no UNet of {kind}, as model_index.json says"
        )


def _check_channels(file: Path, settings: dict[str, Any], channels: int) -> None:
    for key, what in (
        ("in_channels", "takes. Models for inpainting, depth or editing are given a picture, too"),
        ("out_channels", "gives. Models that predict a variance, too"),
    ):
        if (found := _get(settings, key, 4)) != channels:
            raise BenchError(
                f"{file}: {key} is {found}: the decoder's latents have {channels} channels, and this UNet "
                f"{what}, are not supported here"
            )


def _check_text(
    directory: Path, file: Path, settings: dict[str, Any], networks: Mapping[str, type[nn.Module]]
) -> None:
    encoders = [read_json(directory / name / "config.json") for name in networks if name.startswith("text")]
    widths = [_get(encoder, "hidden_size") for encoder in encoders]
    key = "cross_attention_dim" if _get(settings, "encoder_hid_dim") is None else "encoder_hid_dim"
    wanted = _get(settings, key)
    if None in widths or not isinstance(wanted, int) or wanted == sum(widths):
        return
    raise BenchError(
        f"{file}: {key} is {wanted}, and the text encoder's states are {sum(widths)} wide: the two are of "
        "different models"
    )


def _check_vae(file: Path, settings: dict[str, Any]) -> None:
    mean, std = _get(settings, "latents_mean"), _get(settings, "latents_std")
    if (mean is None) != (std is None):
        raise BenchError(f"{file}: latents_mean and latents_std belong together, and only one is there")
    channels = _get(settings, "latent_channels", 4)
    for values in (mean, std):
        if values is not None and (len(values) != channels or not all(map(math.isfinite, values))):
            raise BenchError(
                f"{file}: latents_mean and latents_std need {channels} finite numbers each, one per channel"
            )
    if shift := _get(settings, "shift_factor", 0):
        raise BenchError(
            f"{file}: shift_factor is {shift}: latents that are shifted (Stable Diffusion 3, Flux) are not "
            "supported here"
        )
    factor = _get(settings, "scaling_factor", 0.18215)
    if not math.isfinite(factor) or factor <= 0:
        raise BenchError(f"{file}: scaling_factor is {factor}, and has to be a positive number")
