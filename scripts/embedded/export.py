"""Write models as genuine diffusers / transformers directories that old and new versions read alike.

transformers 5 differs from 4 in three ways that matter for a directory meant to be read by both: the text
encoder's keys lack their `text_model.` prefix (4 then keeps random weights, with only a warning), the
tokenizer is one tokenizer.json, and files are readable by their owner alone. `write_pipeline` and
`write_clip` undo all three.
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

Prediction = Literal["epsilon", "sample", "v_prediction"]
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")


def make_scheduler(
    prediction_type: Prediction = "epsilon",
    set_alpha_to_one: bool = False,
    beta_end: float = 0.012,
    timestep_spacing: Literal["leading", "trailing"] = "leading",
) -> DDIMScheduler:
    """Stable Diffusion 1.x's noise schedule; trailing: sampling starts at its last level."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=beta_end,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        clip_sample=False,
        set_alpha_to_one=set_alpha_to_one,
        steps_offset=1,
        timestep_spacing=timestep_spacing,
    )


def make_video_scheduler() -> DDIMScheduler:
    """The video model's noise schedule: it ends in twenty times as much noise as Stable Diffusion's.

    A clip has eight frames that agree with one another, so that at Stable Diffusion's last noise level its
    motion can still be read off, and words are not needed to tell it (Lin et al. 2024, arXiv:2305.08891, on
    that flaw in pictures). Sampling starts at the last level. The network predicts velocities.
    """
    return make_scheduler("v_prediction", beta_end=0.02, timestep_spacing="trailing")


def make_flow_scheduler(shift: float = 1.0) -> FlowMatchEulerDiscreteScheduler:
    """Stable Diffusion 3's noise levels; shift: above 1, more of them are noisy ones."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)


def _read_tokenizer(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in TOKENIZER_FILES}


def _write_tokenizer(files: dict[str, bytes], directory: Path) -> None:
    """Put these files, and only these, in the place of whatever tokenizer a save has left."""
    for stale in ("tokenizer.json", "added_tokens.json"):
        (directory / stale).unlink(missing_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)


def _convert(module: nn.Module, dtype: torch.dtype) -> None:
    """Convert in place, past diffusers' own `to` with its warning about modules kept in float32 (none)."""
    nn.Module.to(module, dtype)


def _prefix_text_keys(weights: Path) -> None:
    """Rename `encoder.…` to `text_model.encoder.…` in a CLIPTextModel's safetensors file."""
    state = load_file(weights)
    renamed = {key if key.startswith("text_model.") else f"text_model.{key}": v for key, v in state.items()}
    save_file(renamed, weights, metadata={"format": "pt"})


def make_readable(directory: Path) -> None:
    """Let everyone read what is in it."""
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _forget_origin(directory: Path) -> None:
    """Take the path that a part was loaded from out of its config."""
    for path in directory.glob("*/config.json"):
        config = json.loads(path.read_text())
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n")


def write_pipeline(
    directory: Path,
    *,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: Path,
    scheduler: DDIMScheduler,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write a StableDiffusionPipeline without safety checker; the modules are converted to `dtype` in place.

    Weights have the plain names (no variant). tokenizer: directory with the files of `TOKENIZER_FILES`.
    """
    tokenizer_files = _read_tokenizer(tokenizer)
    for module in (vae, unet, text_encoder):
        _convert(module, dtype)
    parts: dict[str, Any] = {
        "vae": vae,
        "unet": unet,
        "text_encoder": text_encoder,
        "tokenizer": CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True),
        "scheduler": scheduler,
        "safety_checker": None,
        "feature_extractor": None,
    }
    pipeline = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipeline.save_pretrained(directory)
    _forget_origin(directory)
    _prefix_text_keys(directory / "text_encoder" / "model.safetensors")
    _write_tokenizer(tokenizer_files, directory / "tokenizer")
    make_readable(directory)
    return directory


def write_clip(
    directory: Path, model: CLIPModel, tokenizer: Path, dtype: torch.dtype = torch.float16
) -> Path:
    """Write a CLIPModel with its tokenizer and image processor (pictures in [0, 1] → (x − 0.5) / 0.5)."""
    tokenizer_files = _read_tokenizer(tokenizer)
    _convert(model, dtype)
    model.save_pretrained(directory)
    size = model.vision_model.config.image_size
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    _write_tokenizer(tokenizer_files, directory)
    make_readable(directory)
    return directory
