"""LoRAs on disk, in the format that diffusers' `pipe.load_lora_weights(directory)` reads.

Loaded are adapters of the UNet in diffusers' format (with or without metadata), in peft's
(adapter_model.safetensors and adapter_config.json) and in the key styles that diffusers converts (kohya's),
of any rank, alpha and targets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from bench.base.errors import BenchError
from bench.models.lora import ADAPTER, lora_parameters
from bench.models.pipeline import Pipeline
from bench.models.random_weights import read_json

_PEFT_PREFIX = "base_model.model."
_RELATIVES = ("dora_scale", "lora_magnitude_vector", "hada_", "lokr_")
_PEFT_SETTINGS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "use_rslora")


def save_lora(pipeline: Pipeline, directory: Path) -> None:
    """Write the UNet's LoRA, alpha included."""
    type(pipeline).save_lora_weights(
        directory,
        unet_lora_layers=dict(get_peft_model_state_dict(pipeline.unet, adapter_name=ADAPTER)),
        unet_lora_adapter_metadata=pipeline.unet.peft_config[ADAPTER].to_dict(),
    )


def load_lora(pipeline: Pipeline, directory: Path) -> None:
    """Replace the UNet's LoRA by the one in a directory; its parameters are float32 and trainable.

    Raises BenchError if there is none, if it has parts other than the UNet's, or if it does not fit the UNet.
    """
    state, alphas, metadata = _read(pipeline, directory)
    wanted = {key: value for key, value in state.items() if not key.startswith("text_encoder")}
    if len(wanted) < len(state):
        raise BenchError(
            f"{directory}: this LoRA also changes the text encoder ({len(state) - len(wanted)} tensors), "
            "which stays frozen here. Load one that was trained on the UNet alone."
        )
    unet = pipeline.unet
    unet.delete_adapters(ADAPTER)
    try:
        type(pipeline).load_lora_into_unet(wanted, alphas, unet, adapter_name=ADAPTER, metadata=metadata)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise BenchError(f"{directory}: this LoRA does not fit the model's UNet: {error}") from error
    parameters = lora_parameters(unet)
    if len(parameters) != len(wanted):
        raise BenchError(
            f"{directory}: this LoRA does not fit the model's UNet: it has {len(wanted)} tensors, and "
            f"{len(parameters)} found a place"
        )
    for p in parameters:
        p.data = p.data.float()
    # Once more: a half precision network has rounded what was put into it.
    tensors = {key.removeprefix("unet."): value for key, value in wanted.items()}
    set_peft_model_state_dict(unet, tensors, adapter_name=ADAPTER)


def _read(pipeline: Pipeline, directory: Path) -> tuple[dict[str, Any], Any, dict[str, Any] | None]:
    """(tensors by name, alphas by layer, the peft config's fields), names as in a pipeline's LoRA file."""
    _check_kind(directory)
    if (directory / "adapter_config.json").is_file():
        return _read_peft(directory)
    try:
        found: Any = type(pipeline).lora_state_dict(
            str(directory),
            return_lora_metadata=True,
            local_files_only=True,
            unet_config=pipeline.unet.config,
        )
    except (OSError, ValueError) as error:
        raise BenchError(f"{directory}: holds no LoRA in diffusers' format: {error}") from error
    state, alphas, metadata = found
    state = _prefixed(state)
    if not any(".lora_A." in key for key in state):
        state, alphas = _peft_names(state, alphas or {})
    return state, alphas, None if metadata is None else _prefixed(metadata)


def _peft_names(state: dict[str, Any], alphas: dict[str, float]) -> tuple[dict[str, Any], dict[str, float]]:
    """Older names → peft's. diffusers would do the same to the tensors, but leaves alphas of attention layers
    under the older names, where they are overlooked when they differ from layer to layer."""
    new = {key: next(iter(convert_unet_state_dict_to_peft({key: None}))) for key in state}
    layers = {key: name.partition(".lora_A.")[0] for key, name in new.items()}
    layers |= {layer: layer for layer in layers.values()}
    renamed = {f"{layers[key.removesuffix('.alpha')]}.alpha": alpha for key, alpha in alphas.items()}
    return {new[key]: value for key, value in state.items()}, renamed


def _prefixed(values: dict[str, Any]) -> dict[str, Any]:
    """Names without a part's name, as `unet.save_lora_adapter` writes them, are the UNet's."""
    parts = ("unet.", "text_encoder")
    return {key if key.startswith(parts) else f"unet.{key}": value for key, value in values.items()}


def _check_kind(directory: Path) -> None:
    """Raises BenchError for relatives of LoRA: diffusers would drop what it does not know of them."""
    for file in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                odd = sorted(key for key in tensors.keys() if any(mark in key for mark in _RELATIVES))  # noqa: SIM118
        except SafetensorError as error:
            raise BenchError(
                f"{file}: no whole safetensors file ({error}). Copy it again; a cell's own is made anew by "
                "`python -m bench verify RESULTS --repair` and another `run`"
            ) from error
        if odd:
            raise BenchError(
                f"{file}: no plain LoRA: it holds {odd[0]} (DoRA, LoHa and LoKr are not supported)"
            )


def _read_peft(directory: Path) -> tuple[dict[str, Any], None, dict[str, Any]]:
    weights = directory / "adapter_model.safetensors"
    if not weights.is_file():
        raise BenchError(f"{directory}: an adapter_config.json without {weights.name}")
    settings = read_json(directory / "adapter_config.json")
    state = {f"unet.{key.removeprefix(_PEFT_PREFIX)}": value for key, value in load_file(weights).items()}
    return state, None, {f"unet.{key}": settings[key] for key in _PEFT_SETTINGS if key in settings}
