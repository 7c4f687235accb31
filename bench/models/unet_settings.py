"""What the config files of a UNet may ask for, checked before its weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.base.errors import BenchError
from bench.models.blueprints import Files
from bench.models.pipeline_settings import check_channels, setting
from bench.models.random_weights import read_json

# Settings of a UNet that is told something which these chains do not tell it.
_TOLD = {
    "time_cond_proj_dim": "the guidance scale, as distilled models are (LCM)",
    "class_embed_type": "a class",
    "num_class_embeds": "a class",
}


def check_unet(files: Files) -> None:
    """Raises BenchError, naming the file and the setting, for a UNet that is told more than a text and a
    time, or that does not fit the decoder or the text encoders."""
    file = files.network / "config.json"
    settings = read_json(file)
    _check_told(file, settings, xl="text_encoder_2" in files.parts)
    check_channels(file, settings, read_json(files.directory / "vae" / "config.json"), default=4)
    _check_text(files, file, settings)


def _check_told(file: Path, settings: dict[str, Any], xl: bool) -> None:
    for key, what in _TOLD.items():
        if setting(settings, key) is not None:
            raise BenchError(f"{file}: {key} is set: this UNet is told {what}, which is not supported here")
    hidden, added = setting(settings, "encoder_hid_dim_type"), setting(settings, "addition_embed_type")
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


def _check_text(files: Files, file: Path, settings: dict[str, Any]) -> None:
    names = [name for name in files.parts if name.startswith("text")]
    encoders = [read_json(files.directory / name / "config.json") for name in names]
    widths = [setting(encoder, "hidden_size") for encoder in encoders]
    key = "cross_attention_dim" if setting(settings, "encoder_hid_dim") is None else "encoder_hid_dim"
    wanted = setting(settings, key)
    if None in widths or not isinstance(wanted, int) or wanted == sum(widths):
        return
    raise BenchError(
        f"{file}: {key} is {wanted}, and the text encoder's states are {sum(widths)} wide: the two are of "
        "different models"
    )
