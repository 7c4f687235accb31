"""What text-to-image and text-to-video models of diffusers share as reverse chains.

The network, the decoder and the text encoder are diffusers' and transformers'; the transitions are
`bench.models.solvers`. Latents are float32 whatever the network's dtype, so that x_{i+1} is rounded in one
place.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from bench.base.errors import BenchError, NotFinite
from bench.engine.chain import Level, State, Transition
from bench.engine.chunks import in_chunks
from bench.models import lora_files
from bench.models.blueprints import blueprint_of
from bench.models.config import ModelConfig
from bench.models.lora import add_lora, call_directly, check_perturbable, lora_parameters, perturbed
from bench.models.pipeline import decoder_dtype, load_pipeline, network_dtype, use_sdpa
from bench.models.sizes import DECODED
from bench.models.text import Schedule, TextCondition, Texts, make_schedule

if TYPE_CHECKING:
    from bench.models.pipeline import Pipeline


KINDS_OF_CALL = 64  # that are compiled: so many rows, with a graph or without; after 8 torch quietly stops


class LatentChain(ABC):
    """The reverse chain of a pipeline with a LoRA on its network, a UNet or a transformer."""

    name: ClassVar[str]  # of the family

    @classmethod
    def load(cls, config: ModelConfig, device: torch.device) -> Self:
        """The chain of the pipeline in config.path or of a `random:` source. Raises BenchError."""
        return cls(load_pipeline(config, network_dtype(config, device), cls.name), config, device)

    def __init__(self, pipeline: Pipeline, config: ModelConfig, device: torch.device) -> None:
        """pipeline: from `load_pipeline`; frozen and moved to the device, its network gets a fresh LoRA.

        Raises BenchError if the resolution does not fit.
        """
        self.pipeline, self.config, self.device, self.steps = pipeline, config, device, config.steps
        self.blueprint = blueprint_of(type(pipeline).__name__)
        self.network, self.vae = getattr(pipeline, self.blueprint.network), pipeline.vae
        self.dtype = network_dtype(config, device)
        self._place()
        self._text = self.blueprint.text(pipeline, config, device, self.dtype)
        add_lora(self.network, config.lora)
        self.adopt_lora()
        if config.gradient_checkpointing:
            self._checkpoint_network()
            self._checkpoint_decoder()
        # A distilled network is told the guidance, and runs once.
        self.guided = config.guidance != 1.0 and not self.network.config.get("guidance_embeds")
        self.evaluations_per_step = 2 if self.guided else 1
        self.latent_shape = self._latent_shape()
        tokens = math.prod(self.latent_shape[-2:]) // self._patch**2
        settings = dict(pipeline.scheduler.config)
        self.solver = self.blueprint.solver(settings, config.solver, self.steps, tokens).to(device)
        self.schedule: Schedule | None = None

    def decode(self, x: Tensor, frames: Tensor | None = None) -> Tensor:
        """Media in [0, 1] from latents, here images; the gradient is zero where the decoder saturates.

        frames: of videos, which ones are wanted: [B, k] indices. Raises BenchError if the decoder leaves the
        range of its dtype.
        """
        if frames is not None:
            raise BenchError("frames can be chosen of videos, and this model makes pictures")
        return self._decoded(x)

    def _checkpoint_network(self) -> None:
        """Have the network recompute its activations."""
        self.network.enable_gradient_checkpointing()

    def _checkpoint_decoder(self) -> None:
        """Have the decoder recompute its activations."""
        self.vae.enable_gradient_checkpointing()

    def _latent_shape(self) -> tuple[int, ...]:
        """Of one sample's latents. Raises BenchError if the resolution does not fit."""
        return (self.network.config["in_channels"], *self._latent_size())

    @abstractmethod
    def _evaluate(self, x: Tensor, i: int, texts: Texts) -> Tensor:
        """The network's output at step i for rows x, float32."""

    def _place(self) -> None:
        """Freeze, cast and move network and decoder; let go of the image encoder, which nothing uses."""
        self.vae.encoder = self.vae.quant_conv = None
        for module in (self.network, self.vae):
            module.requires_grad_(False).eval().to(self.device)
        # Not diffusers' own `to`, which warns of modules that it keeps in float32: there are none.
        upcast = self.blueprint.upcast and bool(self.vae.config["force_upcast"])
        nn.Module.to(self.vae, decoder_dtype(self.config, self.dtype, upcast))
        for module in (self.network, self.vae):
            use_sdpa(module)
        if self.config.channels_last:
            _channels_last(self.network)
            _channels_last(self.vae)

    @property
    def latent_pixels(self) -> int:
        """Pixels per side of one latent."""
        return self.pipeline.vae_scale_factor

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of pictures."""
        height, width = self.latent_shape[-2:]
        return height * self.latent_pixels, width * self.latent_pixels

    @property
    def decoder_dtype(self) -> torch.dtype:
        """What the decoder computes in."""
        return self.vae.dtype

    def adopt_lora(self) -> None:
        """Take what depends on the adapter from the network, after its adapter was replaced."""
        self._adapted = call_directly(self.network)
        self._parameters = lora_parameters(self.network)
        self._run: Callable[..., Any] = self.network
        if self.config.compile:
            torch._dynamo.config.recompile_limit = KINDS_OF_CALL
            self._run = torch.compile(self.network)

    def set_schedule(self, stages: Mapping[str, Sequence[str]], stage_at: Sequence[int]) -> None:
        """Condition steps on texts of their own.

        stages: every prompt's texts, one per stage; stage_at: the stage of every step, length T. Conditions
        made before do not know of it. `chain.schedule = None` ends it. Raises BenchError.
        """
        self.schedule = make_schedule(stages, stage_at, self.steps)

    def condition(self, prompts: Sequence[str]) -> TextCondition:
        """Text states of the prompts, each computed once; with a schedule, those of every stage."""
        texts = [(p,) if self.schedule is None else self.schedule.texts(p) for p in prompts]
        positive = self._text(texts)
        return TextCondition(positive, self._text.empty(*positive.states.shape[:2]) if self.guided else None)

    def prior(self, noise: Tensor) -> State:
        """x_T is the noise itself."""
        return self.solver.prior(noise)

    def transition(
        self,
        state: State,
        i: int,
        cond: TextCondition,
        eta: Tensor,
        x_path_only: bool = False,
        detach_input: bool = False,
    ) -> Transition:
        """The solver's step (`model.solver`)."""
        return self.solver.transition(state, self._output(state, i, cond, x_path_only, detach_input), i, eta)

    def predict_x0(
        self, state: State, i: int, cond: TextCondition, x_path_only: bool = False, detach_input: bool = False
    ) -> Tensor:
        """x_0 predicted in one step from x_i."""
        return self.solver.predict_x0(state, self._output(state, i, cond, x_path_only, detach_input), i)

    def level(self, i: int) -> Level:
        """The solver's."""
        return self.solver.level(i)

    def noised(self, x0: Tensor, noise: Tensor, i: int) -> State:
        """x_0 noised to step i's level, where a multistep solver remembers nothing."""
        return self.solver.prior(self.level(i).of(x0, noise))

    def parameters(self) -> list[nn.Parameter]:
        """The LoRA's parameters, float32, in a fixed order."""
        return self._parameters

    def perturbed(self, delta: Tensor) -> AbstractContextManager[None]:
        """Row b runs with LoRA + delta[b]."""
        if 2 * len(self._adapted) != len(self._parameters):
            check_perturbable(self.network)
        return perturbed(self._adapted, delta, self.evaluations_per_step)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Every row runs without the LoRA."""
        self.network.disable_adapters()
        try:
            yield
        finally:
            self.network.enable_adapters()

    def save_lora(self, directory: Path) -> None:
        """Write the LoRA in diffusers' format: `pipe.load_lora_weights(directory)` reads it."""
        lora_files.save_lora(self.pipeline, directory)

    def load_lora(self, place: Path) -> None:
        """Replace the LoRA by the one in a directory or file, of any rank (`bench.models.lora_files`)."""
        lora_files.load_lora(self.pipeline, place)
        self.adopt_lora()

    def _latent_size(self) -> tuple[int, int]:
        """Height and width of latents. Raises BenchError where `resolution` does not fit."""
        pixels, each = self.config.pixels, self.latent_pixels
        if pixels is not None:
            for side in pixels:
                if side % (each * self._patch):
                    what = "latent" if self._patch == 1 else f"patch of {self._patch}×{self._patch} latents"
                    raise BenchError(
                        f"model.resolution: {side} is no multiple of {each * self._patch}, "
                        f"the pixels per side of one {what}"
                    )
            return pixels[0] // each, pixels[1] // each
        own = self.network.config.get("sample_size", getattr(self.pipeline, "default_sample_size", None))
        if own is None:
            raise BenchError(
                "model.resolution: must be given, as the model's config names no size of its own"
            )
        return (own, own) if isinstance(own, int) else (own[0], own[1])

    @property
    def _patch(self) -> int:
        """Latents per side of one token, in transformers."""
        settings = self.network.config
        return settings.get("patch_size", 1)

    def _decoded(self, x: Tensor) -> Tensor:
        """Pictures [N, 3, H, W] in [0, 1] from their latents [N, C, h, w], `decode_chunk` at a time.

        Without a graph, no more than so many of 512² pixels as training decodes: a large `eval.batch` is for
        the network, and the decoder would take most of the memory.
        """

        def run(part: slice) -> Tensor:
            return self.vae.decode(self._unscaled(x[part]).to(self.vae.dtype)).sample.float()

        chunk = self.config.decode_chunk or len(x)
        if not torch.is_grad_enabled():
            each = self.latent_pixels**2 * x.shape[-2] * x.shape[-1]
            chunk = min(chunk, max(1, DECODED // each))
        pixels = in_chunks(run, len(x), chunk)
        self._check_pixels(pixels, x)
        return (pixels / 2 + 0.5).clamp(0, 1)

    def _check_pixels(self, pixels: Tensor, x: Tensor) -> None:
        """Raises BenchError or NotFinite for pixels that are not finite, if their latents x are."""
        if not bool(pixels.isfinite().all()) and bool(x.isfinite().all()):
            if self.vae.dtype != torch.float32:
                raise BenchError(
                    f"the image decoder overflowed in {self.vae.dtype}: --set model.vae_dtype=float32"
                )
            raise NotFinite(
                "the image decoder gives values that are not finite: its weights are damaged (get vae/ of "
                "the model again), or the latents have run away (training diverged: a smaller train.lr)"
            )

    def _unscaled(self, x: Tensor) -> Tensor:
        """Latents [N, C, h, w] as the decoder was trained on them: by a factor and a shift, or by channel."""
        settings = self.vae.config
        if settings["latents_mean"] is None:
            scaled = x / settings["scaling_factor"]
            return scaled + settings["shift_factor"] if settings["shift_factor"] else scaled
        mean, std = (x.new_tensor(settings[key])[:, None, None] for key in ("latents_mean", "latents_std"))
        return x * std / settings["scaling_factor"] + mean

    def _output(
        self, state: State, i: int, cond: TextCondition, x_path_only: bool, detach_input: bool
    ) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not x_path_only):
            return self._guided(state.x.detach() if detach_input else state.x, i, cond)

    def _guided(self, x: Tensor, i: int, cond: TextCondition) -> Tensor:
        """The network's output with classifier-free guidance, float32; gradient flows through both halves."""
        x, stage = x.to(self.dtype), 0 if self.schedule is None else self.schedule.stage_of(i)
        positive = cond.positive.stage(stage)
        if cond.negative is None:
            return self._evaluate(x, i, positive)
        both = self._evaluate(torch.cat([x, x]), i, positive.below(cond.negative.stage(stage)))
        without, with_text = both.chunk(2)
        return without + self.config.guidance * (with_text - without)


def _channels_last(module: nn.Module) -> None:
    """Two-dimensional convolutions only: the layout has no meaning for others."""
    for p in module.parameters():
        if p.ndim == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)
