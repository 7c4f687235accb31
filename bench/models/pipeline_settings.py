"""What the config files of a pipeline ask for, checked before its weights are read.

A part or a setting that the chains here do not know would run as if it were not there.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from bench.base.errors import BenchError
from bench.models.blueprints import Blueprint, Files
from bench.models.config import T5, ModelConfig
from bench.models.random_weights import read_json
from bench.models.t5_pieces import is_t5

TOKENS = 256  # of a picture, where a scheduler does not say of how many it is made for


def check_settings(directory: Path, network: Path, blueprint: Blueprint, config: ModelConfig) -> None:
    """Raises BenchError, naming the file and the setting, for what would run and mean something else.

    directory: of the pipeline. network: of its network, or of the one in its place.
    """
    index, parts = read_json(directory / "model_index.json"), parts_there(directory, blueprint, config)
    for name in parts:
        found, cls = index[name][1] if name in index else None, blueprint.parts[name]
        if found not in [base.__name__ for base in cls.__mro__]:
            raise BenchError(
                f"{directory / 'model_index.json'}: {name} is a {found}; this pipeline needs a {cls.__name__}"
            )
    _check_t5(blueprint, config)
    blueprint.check(Files(directory, network, parts))
    _check_vae(directory / "vae" / "config.json", blueprint.shifted)
    # What it is loaded as; its own file may say otherwise, and then both have to be understood.
    scheduler = read_json(directory / "scheduler" / "scheduler_config.json")
    named = {"_class_name": index["scheduler"][1] if "scheduler" in index else None}
    for settings in (scheduler | named, named | scheduler):
        tokens = setting(settings, "base_image_seq_len", TOKENS)
        blueprint.solver(settings, config.solver, config.steps, tokens)


def parts_there(directory: Path, blueprint: Blueprint, config: ModelConfig) -> tuple[str, ...]:
    """The parts with weights of a pipeline that are loaded: all of its blueprint but the optional ones that
    it lacks, or that the settings leave out."""
    index = read_json(directory / "model_index.json")
    lacking = {name for name in blueprint.optional if name not in index or index[name][1] is None}
    lacking |= set() if config.t5 else {T5}
    return tuple(name for name in blueprint.parts if name not in lacking)


def setting(settings: dict[str, Any], key: str, default: Any = None) -> Any:
    """A setting; older files leave out what has its default."""
    return settings[key] if key in settings and settings[key] is not None else default


def check_channels(file: Path, settings: dict[str, Any], vae: dict[str, Any], default: int) -> None:
    """Raises BenchError for a network that takes or gives other channels than those of the decoder's latents.

    file, settings: the network's. default: its channels where they are left out.
    """
    channels = setting(vae, "latent_channels", 4)
    for key, what in (
        ("in_channels", "takes. Models for inpainting, depth or editing are given a picture, too"),
        ("out_channels", "gives. Models that predict a variance, too"),
    ):
        if (found := setting(settings, key, default)) != channels:
            raise BenchError(
                f"{file}: {key} is {found}: the decoder's latents have {channels} channels, and this network "
                f"{what}, are not supported here"
            )


def check_width(file: Path, key: str, found: int, given: int) -> None:
    """Raises BenchError for a network that takes text states of another width than the encoders give."""
    if found != given:
        raise BenchError(
            f"{file}: {key} is {found}, and the text encoders' states are {given} wide: the two are of "
            "different models"
        )


def _check_t5(blueprint: Blueprint, config: ModelConfig) -> None:
    if not config.t5 and T5 not in blueprint.optional:
        raise BenchError("model.t5: only pipelines of Stable Diffusion 3 may lack their T5")
    if config.t5_tokens is not None and not any(map(is_t5, blueprint.parts.values())):
        raise BenchError("model.t5_tokens: this model's text encoder is no T5")


def _check_vae(file: Path, shifted: bool) -> None:
    settings = read_json(file)
    mean, std = setting(settings, "latents_mean"), setting(settings, "latents_std")
    if (mean is None) != (std is None):
        raise BenchError(f"{file}: latents_mean and latents_std belong together, and only one is there")
    channels = setting(settings, "latent_channels", setting(settings, "z_dim", 4))
    for values in (mean, std):
        if values is not None and (len(values) != channels or not all(map(math.isfinite, values))):
            raise BenchError(
                f"{file}: latents_mean and latents_std need {channels} finite numbers each, one per channel"
            )
    shift = setting(settings, "shift_factor", 0)
    if shift and not shifted:
        raise BenchError(
            f"{file}: shift_factor is {shift}: latents that are shifted (Stable Diffusion 3, Flux) are no "
            "matter of this pipeline"
        )
    if not math.isfinite(shift):
        raise BenchError(f"{file}: shift_factor is {shift}, and has to be a number")
    factor = setting(settings, "scaling_factor", 0.18215)
    if not math.isfinite(factor) or factor <= 0:
        raise BenchError(f"{file}: scaling_factor is {factor}, and has to be a positive number")
