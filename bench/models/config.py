"""Settings of a model: which weights, how the chain is run, what is trained. No torch in here.

`source`: see `bench.data.sources`; `path` overrides it.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from bench.base.strict import Strict
from bench.data.need import HUB_IGNORED, HUB_PATTERNS, Need, check_source

# SDXL's repository holds a second decoder and exports of its parts for other programs.
# Stable Diffusion 3.5's has its text encoders a second time.
IGNORED = (*HUB_IGNORED, "*.fp16-*", "vae_1_0/*", "vae_decoder/*", "vae_encoder/*", "text_encoders/*")
# Instead of safetensors, in repositories of before there were any.
BIN_PATTERNS = tuple(f"{part}/*.bin" for part in ("unet", "vae", "text_encoder"))
T5 = "text_encoder_3"  # in pipelines of diffusers
UNET_PATTERNS = ("*.json", "*.safetensors", "*.bin")
SolverName = Literal["ddim", "dpmpp", "euler", "flow_sde", "flow_cps"]
DIFFUSION: tuple[SolverName, ...] = ("ddim", "dpmpp")
FLOW: tuple[SolverName, ...] = ("euler", "flow_sde", "flow_cps")
SOLVERS = {"image": DIFFUSION, "video": DIFFUSION, "sd3": FLOW, "flux": FLOW, "wan": FLOW}  # by family
Pixels = Annotated[int, Field(ge=8)]
PICTURES, VIDEOS = ("image", "sd3", "flux"), ("video", "wan")  # families
ATTENTION_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


class LoraConfig(Strict):
    """The low-rank adapter that is trained. It stays in float32 whatever the model's dtype."""

    rank: int = Field(default=16, ge=1, description="rank of the update of every adapted layer")
    alpha: float | None = Field(
        default=None, gt=0, description="the update is scaled by alpha / rank; null: alpha = rank"
    )
    targets: tuple[str, ...] = Field(
        default=ATTENTION_PROJECTIONS,
        min_length=1,
        description="name endings of the network's layers that are adapted",
    )

    @property
    def scale(self) -> float:
        """Factor on the low-rank update, alpha / rank."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


class ModelConfig(Strict):
    """One model and the way its reverse chain is run."""

    family: str = Field(
        default="image",
        description="the loader: image (Stable Diffusion 1, 2 and XL), sd3 (3 and 3.5), flux (FLUX.1), "
        "video, wan (Wan 2.1), or a plugin's",
    )
    source: str | None = Field(
        default=None, description="`embedded:sd`, `hub:org/name`, `path:directory` or `random:architecture`"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit of a hub source")
    path: Path | None = Field(default=None, description="local directory with the weights, instead of source")
    unet_source: str | None = Field(
        default=None, description="video: another repository's UNet in the place of the pipeline's own"
    )
    unet_revision: str | None = Field(default=None, description="of unet_source: branch, tag or commit")
    unet_path: Path | None = Field(default=None, description="local directory with that UNet")
    weight_files: Literal["safetensors", "bin"] = Field(
        default="safetensors", description="which files to fetch from the hub; bin: of older repositories"
    )
    steps: int = Field(default=50, ge=1, description="T, the number of denoising steps")
    guidance: float = Field(
        default=7.5,
        ge=0,
        description="classifier-free guidance scale; 1 runs no unconditional half. Distilled networks "
        "(FLUX.1-dev) are told the scale instead",
    )
    solver: SolverName = Field(
        default="ddim",
        description="DDIM, or DPM-Solver++ 2M; of flow-matching models euler, flow_sde (Flow-GRPO's) or "
        "flow_cps, which differ where there is noise",
    )
    t5: bool = Field(
        default=True,
        description="sd3: with the T5 text encoder, more than half of the weights of sd35; without it zeros "
        "stand for its states, as in diffusers",
    )
    t5_tokens: int | None = Field(
        default=None,
        ge=1,
        le=512,
        description="of a text that T5 reads, the rest being cut off; null: as many as diffusers' pipeline "
        "takes, 256 (sd3) or 512 (flux, wan)",
    )
    dtype: Literal["float32", "float16", "bfloat16", "half"] = Field(
        default="float32",
        description="of the frozen weights and of what flows between them; half: float16 on a GPU, bfloat16 "
        "on a CPU. Latents and the LoRA stay float32",
    )
    vae_dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto",
        description="of the image decoder; auto: as dtype, but float32 for the decoders of SDXL and of the "
        "embedded models, whose activations leave the range of float16",
    )
    variant: str | None = Field(
        default=None, description="of the weight files: fp16 reads `*.fp16.safetensors`, half the download"
    )
    resolution: Pixels | tuple[Pixels, Pixels] | None = Field(
        default=None, description="pixels per side, or [height, width]; null: the model's own"
    )
    frames: int | None = Field(default=None, ge=1, description="pictures of a video; null: an image model")
    fps: int | None = Field(
        default=None,
        ge=1,
        description="frames per second, for UNets that are told them (VideoCrafter2)",
    )
    decode_chunk: int | None = Field(
        default=None,
        ge=1,
        description="pictures (of a video: frames) that are decoded at once; a gradient then needs the "
        "decoder's memory for no more, at the price of one more decoding; null: all",
    )
    lora: LoraConfig = LoraConfig()
    gradient_checkpointing: bool = Field(
        default=False, description="recompute activations: less memory, more time"
    )
    offload: bool = Field(default=False, description="keep the network's stored activations in CPU memory")
    channels_last: bool = Field(
        default=False,
        description="memory layout of network and decoder: the channels of a pixel side by side",
    )
    compile: bool = Field(
        default=False,
        description="torch.compile the network: minutes at the start, counted apart, perhaps faster steps",
    )

    @model_validator(mode="after")
    def _source_is_known(self) -> "ModelConfig":
        check_source(self.source, ("embedded", "hub", "path", "random"))
        check_source(self.unet_source, ("hub", "path"))
        return self

    @model_validator(mode="after")
    def _videos_have_frames(self) -> "ModelConfig":
        if self.family in VIDEOS and self.frames is None:
            raise ValueError(
                f"a model of family {self.family} needs `frames`, the number of pictures of a video"
            )
        if self.family in PICTURES and self.frames is not None:
            raise ValueError(
                f"`frames` is for videos (family video or wan), and family {self.family} makes pictures"
            )
        if self.family in (*PICTURES, "wan") and (self.unet_source, self.unet_path) != (None, None):
            raise ValueError("`unet_source` and `unet_path` are for family video")
        return self

    @property
    def pixels(self) -> tuple[int, int] | None:
        """Height and width, if they are given."""
        size = self.resolution
        return (size, size) if isinstance(size, int) else size

    def needs(self, name: str, section: str) -> tuple[Need, ...]:
        """The weights, unless they are random or the family has none."""
        if self.path is None and (self.source is None or self.source.startswith("random:")):
            return ()
        setting, (files, ignored) = f"{section}.path", self._patterns()
        whole = Need(name, self.source, setting, self.path, self.revision, files, ignored)
        if self.unet_source is None and self.unet_path is None:
            return (whole,)
        setting, place = f"{section}.unet_path", (self.unet_path, self.unet_revision)
        return whole, Need(f"{name} unet", self.unet_source, setting, *place, UNET_PATTERNS)

    def _patterns(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        ignored = IGNORED if self.t5 else (*IGNORED, f"{T5}/*", "tokenizer_3/*")
        if self.variant is None and self.weight_files == "safetensors":
            return HUB_PATTERNS, ignored
        files = tuple(p for p in HUB_PATTERNS if not p.endswith(".safetensors"))
        if self.variant is None:
            return (*files, *BIN_PATTERNS), ignored
        own = (f"*.{self.variant}.*", f"*.{self.variant}-*")
        files += tuple(f"*/*.{self.variant}{shard}.{self.weight_files}" for shard in ("", "-*"))
        return files, tuple(p for p in ignored if p not in own)
