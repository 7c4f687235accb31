"""The export stage: put trained parts together as the directories that ship."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import nn
from transformers import CLIPTokenizer

from bench.models.embedded.clip import build_clip
from bench.models.embedded.export import make_scheduler, write_clip, write_pipeline
from bench.models.embedded.unet import ImageModel

MAX_MEGABYTES = 12.0


def load_average(model: nn.Module, training: Path, step: int | None) -> None:
    """Load averaged weights of a milestone, or of the last snapshot (`step=None`)."""
    if step is None:
        average = torch.load(training / "snapshot.pt", weights_only=True)["ema"]
    else:
        average = torch.load(training / f"step-{step:06d}.pt", weights_only=True)
    missing, unexpected = model.load_state_dict(average, strict=False)
    parameters = {name for name, _ in model.named_parameters()}
    if unexpected or parameters & set(missing):
        raise ValueError(f"{training}: weights do not fit: {unexpected or parameters & set(missing)}")


def export_pipeline(work: Path, target: Path, step: int | None = None) -> Path:
    """Write the image model as a float16 StableDiffusionPipeline."""
    tokenizer = work / "tokenizer"
    model = ImageModel(CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True))
    load_average(model, work / "unet-training", step)
    return write_pipeline(
        target,
        vae=AutoencoderKL.from_pretrained(work / "vae"),
        unet=model.unet,
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        scheduler=make_scheduler(),
    )


def export_clip(work: Path, target: Path, step: int | None = None) -> Path:
    """Write the reward as a float16 CLIPModel."""
    tokenizer = work / "tokenizer"
    model = build_clip(CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True))
    load_average(model, work / "reward-training", step)
    return write_clip(target, model, tokenizer)


def export(work: Path, weights: Path, unet_step: int | None = None, reward_step: int | None = None) -> Path:
    """Write `weights/sd` and `weights/clip`; ValueError if together they are larger than 12 MB."""
    export_pipeline(work, weights / "sd", unet_step)
    export_clip(work, weights / "clip", reward_step)
    size = sum(path.stat().st_size for path in weights.rglob("*.safetensors")) / 1e6
    if size > MAX_MEGABYTES:
        raise ValueError(f"{weights}: {size:.2f} MB of weights, at most {MAX_MEGABYTES} are to ship")
    return weights
