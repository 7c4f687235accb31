"""LoRAs on disk, in the format that diffusers' `pipe.load_lora_weights(directory)` reads.

Loaded are adapters of the network, a UNet or a transformer, in diffusers' format (with or without
metadata), in peft's (adapter_model.safetensors and adapter_config.json) and, of UNets, in the key styles that
diffusers converts (kohya's), of any rank, alpha and targets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.base.whole import some
from bench.models.blueprints import blueprint_of
from bench.models.lora import ADAPTER, lora_parameters
from bench.models.lora_place import PEFT_SETTINGS, PEFT_WEIGHTS, weights_file
from bench.models.lora_settings import from_peft, from_tensors
from bench.models.random_weights import read_json

if TYPE_CHECKING:
    from bench.models.pipeline import Pipeline

_PEFT_PREFIX = "base_model.model."
_TEXT = "text_encoder"
_RELATIVES = ("dora_scale", "lora_magnitude_vector", "hada_", "lokr_")
Tensors = dict[str, Tensor]


def save_lora(pipeline: Pipeline, directory: Path) -> None:
    """Write the network's LoRA, alpha included: the same LoRA gives the same bytes."""
    name, network = _network(pipeline)
    layers = dict(get_peft_model_state_dict(network, adapter_name=ADAPTER))
    settings = {f"{name}.{key}": value for key, value in network.peft_config[ADAPTER].to_dict().items()}
    # As diffusers writes it, but for sets, which it lists in another order in every process.
    about = {LORA_ADAPTER_METADATA_KEY: json.dumps(settings, indent=2, sort_keys=True, default=sorted)}

    def write(tensors: Tensors, file: str) -> None:
        write_atomically(Path(file), packed(tensors, about))

    how: dict[str, Any] = {f"{name}_lora_layers": layers, "save_function": write}
    type(pipeline).save_lora_weights(directory, **how)


def packed(tensors: Tensors, about: Mapping[str, str]) -> bytes:
    """A safetensors file with this metadata, the same bytes for the same contents: the library writes
    metadata in any order."""
    data = save(tensors, {"format": "pt", **about})
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[end:]


def read_saved(place: Path) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and settings of a LoRA that `save_lora` wrote, under diffusers' names. Raises BenchError."""
    file = weights_file(place)
    tensors, settings = _open(file)
    if settings is None:
        raise BenchError(f"{file}: has no {LORA_ADAPTER_METADATA_KEY}, which a cell's LoRA has")
    return tensors, settings


def load_lora(pipeline: Pipeline, place: Path) -> None:
    """Replace the network's LoRA by the one in a file or directory; its parameters are float32 and trainable.

    Raises BenchError if there is none, if it has parts other than the network's, if its settings or numbers
    are none to run with, or if it does not fit.
    """
    file = weights_file(place)
    tensors, settings = _read(pipeline, file)
    # Such as a whole layer's weights, which peft would put in the place of the model's own.
    if strange := [key for key in tensors if not key.endswith((".lora_A.weight", ".lora_B.weight"))]:
        raise BenchError(f"{file}: holds {some(strange)}, no tensor of a LoRA of the network's layers")
    if not tensors:
        raise BenchError(f"{file}: holds no tensors of a LoRA of the network")
    name, network = _network(pipeline)
    # Before peft sees them, which would warn of every one at length.
    layers = {layer for layer, _ in network.named_modules()}
    _check_places(file, tensors, {key for key in tensors if _layer(key) in layers})
    network.delete_adapters(ADAPTER)
    load: Any = getattr(type(pipeline), f"load_lora_into_{name}")
    if "network_alphas" in signature(load).parameters:
        load = partial(load, network_alphas=None)
    try:
        load(
            {f"{name}.{key}": value for key, value in tensors.items()},
            adapter_name=ADAPTER,
            metadata={f"{name}.{key}": value for key, value in settings.items()},
            **{name: network},
        )
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise BenchError(f"{file}: this LoRA does not fit the model's network: {error}") from error
    _check_places(file, tensors, set(get_peft_model_state_dict(network, adapter_name=ADAPTER)))
    for p in lora_parameters(network):
        p.data = p.data.float()
    # Once more: a half precision network has rounded what was put into it.
    set_peft_model_state_dict(network, tensors, adapter_name=ADAPTER)


def _check_places(file: Path, tensors: Tensors, places: set[str]) -> None:
    """Raises BenchError unless the file's tensors and the adapter's places are the same, one for one."""
    for names, what in (
        (tensors.keys() - places, "no place in it for"),
        (places - tensors.keys(), "its settings name layers without tensors:"),
    ):
        if names:
            raise BenchError(
                f"{file}: this LoRA does not fit the model's network: {what} {some(names)}, of "
                f"{len(tensors)} tensors"
            )


def _read(pipeline: Pipeline, file: Path) -> tuple[Tensors, dict[str, Any]]:
    """(tensors, the settings of a peft config), both named as in the network. Raises BenchError."""
    state, metadata = _open(file)
    if any(key.startswith(_PEFT_PREFIX) for key in state):
        return _read_peft(file, state)
    name, network = _network(pipeline)
    try:
        cls: Any = type(pipeline)
        if name == "unet":
            state, alphas = cls.lora_state_dict(state, unet_config=network.config)
        elif "return_alphas" in signature(cls.lora_state_dict).parameters:
            state, alphas = cls.lora_state_dict(state, return_alphas=True)
        else:
            state, alphas = cls.lora_state_dict(state), None
    except (ValueError, KeyError) as error:
        raise BenchError(f"{file}: holds no LoRA in diffusers' format: {error}") from error
    tensors, given = _peft_names(_own(file, state, name), _own(file, alphas or {}, name))
    if metadata is None:
        ranks = {_layer(key): value.shape[0] for key, value in tensors.items() if ".lora_A." in key}
        if strange := given.keys() - ranks.keys():
            raise BenchError(f"{file}: gives alpha of layers without tensors: {some(strange)}")
        return tensors, from_tensors(ranks, given) if ranks else {}
    if given:
        raise BenchError(f"{file}: gives alpha twice, in its metadata and as a tensor of {min(given)}")
    return tensors, from_peft(_own(file, metadata, name), file)


def _open(file: Path) -> tuple[Tensors, dict[str, Any] | None]:
    """Tensors and diffusers' metadata, if there are any. Raises BenchError for what no LoRA can have.

    Of relatives of LoRA diffusers would drop what it does not know.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            about = opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise BenchError(
            f"{file}: no whole safetensors file ({error}). Copy it again; a cell's own is made anew by "
            "`python -m bench verify RESULTS --repair` and another `run`"
        ) from error
    if not state:
        raise BenchError(f"{file}: holds no tensors, so no LoRA")
    if odd := [key for key in state if any(mark in key for mark in _RELATIVES)]:
        raise BenchError(
            f"{file}: no plain LoRA: it holds {min(odd)} (DoRA, LoHa and LoKr are not supported)"
        )
    if bad := [key for key, value in state.items() if not bool(value.isfinite().all())]:
        raise BenchError(f"{file}: not all its numbers are finite: {some(bad)}. Its training diverged")
    if LORA_ADAPTER_METADATA_KEY not in about:
        return state, None
    try:
        return state, json.loads(about[LORA_ADAPTER_METADATA_KEY])
    except ValueError as error:
        raise BenchError(f"{file}: its {LORA_ADAPTER_METADATA_KEY} is not JSON: {error}") from error


def _read_peft(file: Path, state: Tensors) -> tuple[Tensors, dict[str, Any]]:
    config = file.with_name(PEFT_SETTINGS)
    if file.name != PEFT_WEIGHTS or not config.is_file():
        raise BenchError(
            f"{file}: in peft's format, whose alpha is in {PEFT_SETTINGS}: load a directory with that "
            f"file and {PEFT_WEIGHTS}"
        )
    tensors = {key.removeprefix(_PEFT_PREFIX): value for key, value in state.items()}
    return tensors, from_peft(read_json(config), config)


def _network(pipeline: Pipeline) -> tuple[str, Any]:
    """The network that is trained, and what the pipeline calls it."""
    name = blueprint_of(type(pipeline).__name__).network
    return name, getattr(pipeline, name)


def _own(file: Path, values: dict[str, Any], network: str) -> dict[str, Any]:
    """Names without the network's own (`unet.`): those without a part, as `unet.save_lora_adapter` writes
    them, belong to it."""
    if others := [key for key in values if key.startswith(_TEXT)]:
        raise BenchError(
            f"{file}: this LoRA also changes the text encoder ({len(others)} tensors), which stays frozen "
            "here. Load one that was trained on the network alone."
        )
    return {key.removeprefix(f"{network}."): value for key, value in values.items()}


def _peft_names(state: Tensors, alphas: dict[str, Any]) -> tuple[Tensors, dict[str, float]]:
    """Tensors under peft's names, and the alphas that are given, by layer.

    diffusers would do the same to tensors under older names, but leaves alphas of attention layers under the
    older names, where they are overlooked when they differ from layer to layer; and under its own names it
    takes `X.alpha` for a tensor of the adapter.
    """
    suffix = ".alpha"
    alphas = alphas | {key: value for key, value in state.items() if key.endswith(suffix)}
    state = {key: value for key, value in state.items() if key not in alphas}
    new = {key: next(iter(convert_unet_state_dict_to_peft({key: None}))) for key in state}
    layers = {key: _layer(name) for key, name in new.items()}
    layers |= {layer: layer for layer in layers.values()}
    known = {layers.get(key.removesuffix(suffix), key): float(alpha) for key, alpha in alphas.items()}
    return {new[key]: value for key, value in state.items()}, known


def _layer(key: str) -> str:
    return key.partition(".lora_")[0]
