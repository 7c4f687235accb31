"""What the settings of a LoRA file mean: peft's, or alphas and ranks read off its tensors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft

from bench.base.errors import BenchError

CARRIED = (
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
)
# For training, for the record, or of an initialisation (which is looked at by itself).
_WITHOUT_EFFECT = {
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "fan_in_fan_out",  # of linear layers peft itself puts it to false
    "inference_mode",
    "init_lora_weights",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "revision",
    "task_type",
}
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")  # that leave the base weights alone
_NOTHING: tuple[Any, ...] = (None, False, [], {}, "none")


def from_peft(settings: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The settings that make the loaded adapter what peft makes of it.

    settings: the fields of a peft config. file: for messages. Raises BenchError for one that has an effect
    which is not reproduced here.
    """
    kind, start = settings.get("peft_type", "LORA"), settings.get("init_lora_weights")
    if kind != "LORA":
        raise BenchError(f"{file}: peft_type is {kind}: only LORA is supported")
    if start not in _PLAIN_STARTS:
        raise BenchError(
            f"{file}: init_lora_weights is {start}: such an adapter belongs to base weights that its start "
            "has changed. Save it as a plain one, by peft's save_pretrained with "
            "path_initial_model_for_weight_conversion"
        )
    usual = peft.LoraConfig().to_dict()
    for key in sorted(settings.keys() - _WITHOUT_EFFECT - set(CARRIED)):
        value = settings[key]
        if value not in _NOTHING and (key not in usual or value != usual[key]):
            raise BenchError(f"{file}: {key} is {value}: a LoRA with it is not supported here")
    return {key: settings[key] for key in CARRIED if key in settings}


def from_tensors(ranks: Mapping[str, int], alphas: Mapping[str, float]) -> dict[str, Any]:
    """The same from the ranks of all layers and the alphas that are given: a layer without has its rank for
    alpha, scale 1."""
    full = {layer: alphas.get(layer, rank) for layer, rank in ranks.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, full))
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {_only(layer): n for layer, n in ranks.items() if n != rank},
        "alpha_pattern": {_only(layer): a for layer, a in full.items() if a != alpha},
        "target_modules": sorted(ranks),
    }


def _only(layer: str) -> str:
    """peft's pattern of this layer alone: without the ^ it would match whatever ends in its name."""
    return f"^{re.escape(layer)}"
