"""Text-to-image models in Stable Diffusion format as reverse chains (the only user of diffusers' pipelines).

The network, the decoder and the text encoder are diffusers' and transformers'; the transitions are
`bench.solvers`. Latents are float32 whatever the network's dtype, so that x_{i+1} is rounded in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from bench.chain import State, Transition
from bench.errors import BenchError
from bench.models.config import ModelConfig
from bench.models.lora import ADAPTER, add_lora, lora_parameters, perturbable, perturbed
from bench.solvers import ddim_transition, dpmpp_transition, split_prediction


@dataclass(frozen=True)
class TextCondition:
    """Text states [B, tokens, width] of the prompts and, with guidance, of the empty prompt."""

    positive: Tensor
    negative: Tensor | None

    def select(self, rows: Tensor) -> TextCondition:
        """The given rows."""
        return TextCondition(self.positive[rows], None if self.negative is None else self.negative[rows])


@dataclass(frozen=True)
class Grid:
    """What each step runs at: timestep, and cumulative alphas at its noisy and its clean end, each [T]."""

    timesteps: Tensor
    a_t: Tensor
    a_prev: Tensor


def ddim_grid(scheduler: DDIMScheduler, steps: int) -> Grid:
    """DDIM's grid, the last step ending at the scheduler's final_alpha_cumprod."""
    scheduler.set_timesteps(steps)
    t = scheduler.timesteps
    previous = t - scheduler.config["num_train_timesteps"] // steps
    alphas = scheduler.alphas_cumprod
    a_prev = torch.where(previous >= 0, alphas[previous.clamp(min=0)], scheduler.final_alpha_cumprod)
    return Grid(t, alphas[t], a_prev)


def dpmpp_grid(scheduler: DPMSolverMultistepScheduler, steps: int) -> Grid:
    """DPM-Solver++'s grid; cumulative alpha = 1 / (1 + sigma²), the last step usually ending at sigma = 0."""
    scheduler.set_timesteps(steps)
    a = 1 / (1 + scheduler.sigmas.double() ** 2)
    return Grid(scheduler.timesteps, a[:-1].float(), a[1:].float())


class ImageChain:
    """The reverse chain of a Stable Diffusion pipeline with a LoRA on its UNet."""

    def __init__(self, pipeline: StableDiffusionPipeline, config: ModelConfig, device: torch.device) -> None:
        """pipeline: loaded in config.dtype; frozen and moved to the device, its UNet gets a fresh LoRA."""
        self.pipeline, self.config, self.device, self.steps = pipeline, config, device, config.steps
        self.unet, self.vae = pipeline.unet, pipeline.vae
        self.dtype = getattr(torch, config.dtype)
        for module in (self.unet, self.vae, pipeline.text_encoder):
            module.requires_grad_(False).eval().to(device)
        add_lora(self.unet, config.lora)
        self._parameters = lora_parameters(self.unet)
        self._perturbable: list[nn.Linear] | None = None
        if config.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
            self.vae.enable_gradient_checkpointing()
        size = self.unet.config["sample_size"]
        if config.resolution is not None:
            size = config.resolution // pipeline.vae_scale_factor
        self.latent_shape = (self.unet.config["in_channels"], size, size)
        self.guided = config.guidance != 1.0
        self.evaluations_per_step = 2 if self.guided else 1
        settings = dict(pipeline.scheduler.config)
        self.prediction_type = (
            str(settings["prediction_type"]) if "prediction_type" in settings else "epsilon"
        )
        self.grid = self._grid(settings)
        self._texts: dict[str, Tensor] = {}

    def condition(self, prompts: Sequence[str]) -> TextCondition:
        """Text states of the prompts, each computed once."""
        negative = self._embed([""] * len(prompts)) if self.guided else None
        return TextCondition(self._embed(prompts), negative)

    def prior(self, noise: Tensor) -> State:
        """x_T is the noise itself."""
        if self.config.solver == "ddim":
            return State(noise)
        return State(
            noise, torch.zeros_like(noise), torch.zeros(len(noise), dtype=torch.bool, device=noise.device)
        )

    def transition(
        self, state: State, i: int, cond: TextCondition, eta: Tensor, x_path_only: bool = False
    ) -> Transition:
        """DDIM, or DPM-Solver++ 2M with its SDE form where eta > 0."""
        x0, eps = self._predict(state, i, cond, x_path_only)
        a_t, a_prev = self.grid.a_t[i], self.grid.a_prev[i]
        if self.config.solver == "ddim":
            return ddim_transition(x0, eps, a_t, a_prev, eta)
        return dpmpp_transition(
            state.x,
            x0,
            a_t,
            a_prev,
            eta,
            older=state.history,
            older_valid=state.valid,
            a_older=self.grid.a_t[i - 1] if i > 0 else None,
        )

    def predict_x0(self, state: State, i: int, cond: TextCondition, x_path_only: bool = False) -> Tensor:
        """x_0 predicted in one step from x_i."""
        return self._predict(state, i, cond, x_path_only)[0]

    def decode(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] from latents; the gradient is zero where the decoder saturates."""
        latents = (x / self.vae.config["scaling_factor"]).to(self.dtype)
        return (self.vae.decode(latents).sample.float() / 2 + 0.5).clamp(0, 1)

    def parameters(self) -> list[nn.Parameter]:
        """The LoRA."""
        return self._parameters

    def perturbed(self, delta: Tensor) -> AbstractContextManager[None]:
        """Row b runs with LoRA + delta[b]."""
        if self._perturbable is None:
            self._perturbable = perturbable(self.unet)
        return perturbed(self._perturbable, delta)

    def save_lora(self, directory: Path) -> None:
        """Write the LoRA in diffusers' format: `pipe.load_lora_weights(directory)` reads it, alpha
        included."""
        StableDiffusionPipeline.save_lora_weights(
            directory,
            unet_lora_layers=dict(get_peft_model_state_dict(self.unet, adapter_name=ADAPTER)),
            unet_lora_adapter_metadata=self.unet.peft_config[ADAPTER].to_dict(),
        )

    def load_lora(self, directory: Path) -> None:
        """Replace the LoRA by one in diffusers' format, of any rank. Raises BenchError if none is there."""
        try:
            found = StableDiffusionPipeline.lora_state_dict(
                str(directory), return_lora_metadata=True, local_files_only=True
            )
        except OSError as error:
            raise BenchError(f"{directory}: holds no LoRA in diffusers' format: {error}") from error
        state, alphas, metadata = (*found, None)[:3]
        self.unet.delete_adapters(ADAPTER)
        StableDiffusionPipeline.load_lora_into_unet(
            state, alphas, self.unet, adapter_name=ADAPTER, metadata=metadata
        )
        self._parameters, self._perturbable = lora_parameters(self.unet), None
        for p in self._parameters:
            p.data = p.data.float()

    def _grid(self, settings: dict[str, object]) -> Grid:
        if self.config.solver == "ddim":
            ddim = DDIMScheduler.from_config(settings, clip_sample=False, thresholding=False)
            assert isinstance(ddim, DDIMScheduler)
            grid = ddim_grid(ddim, self.steps)
        else:
            dpmpp = DPMSolverMultistepScheduler.from_config(
                settings,
                algorithm_type="dpmsolver++",
                solver_order=2,
                solver_type="midpoint",
                thresholding=False,
            )
            assert isinstance(dpmpp, DPMSolverMultistepScheduler)
            grid = dpmpp_grid(dpmpp, self.steps)
        if len(grid.timesteps) != self.steps:
            raise BenchError(f"model.steps: the scheduler makes {len(grid.timesteps)} steps of {self.steps}")
        return Grid(*(t.to(self.device) for t in (grid.timesteps, grid.a_t, grid.a_prev)))

    def _predict(self, state: State, i: int, cond: TextCondition, detach: bool) -> tuple[Tensor, Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not detach):
            output = self._network(state.x, self.grid.timesteps[i], cond)
        return split_prediction(output, state.x, self.grid.a_t[i], self.prediction_type)

    def _network(self, x: Tensor, t: Tensor, cond: TextCondition) -> Tensor:
        """The UNet's output with classifier-free guidance, float32; gradient flows through both halves."""
        x = x.to(self.dtype)
        if cond.negative is None:
            return self.unet(x, t, cond.positive).sample.float()
        both = self.unet(torch.cat([x, x]), t, torch.cat([cond.negative, cond.positive])).sample.float()
        without, with_text = both.chunk(2)
        return without + self.config.guidance * (with_text - without)

    @torch.no_grad()
    def _embed(self, prompts: Sequence[str]) -> Tensor:
        new = [p for p in dict.fromkeys(prompts) if p not in self._texts]
        if new:
            tokenizer = self.pipeline.tokenizer
            ids = tokenizer(
                new,
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            states = self.pipeline.text_encoder(ids.to(self.device))[0].cpu()
            self._texts.update(zip(new, states, strict=True))
        return torch.stack([self._texts[p] for p in prompts]).to(self.device, self.dtype)


def load_image_chain(config: ModelConfig, device: torch.device) -> ImageChain:
    """The chain of the pipeline in config.path. Raises BenchError if that is not a Stable Diffusion
    directory."""
    if config.path is None:
        raise BenchError("model.path: a directory in Stable Diffusion format is needed")
    if not (config.path / "model_index.json").is_file():
        raise BenchError(f"{config.path}: no model_index.json there, so not a pipeline in diffusers' format")
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            config.path,
            dtype=getattr(torch, config.dtype),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            local_files_only=True,
        )
    except (OSError, ValueError) as error:
        raise BenchError(
            f"{config.path}: cannot be loaded as a Stable Diffusion pipeline: {error}"
        ) from error
    return ImageChain(pipeline, config, device)
