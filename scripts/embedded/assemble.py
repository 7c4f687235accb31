"""The export stage: put trained parts together as the directories that ship."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from scripts.embedded.clip import build_clip
from scripts.embedded.export import (
    make_flow_scheduler,
    make_readable,
    make_scheduler,
    make_video_scheduler,
    write_clip,
    write_pipeline,
)
from scripts.embedded.flow import build_encoders, build_transformer
from scripts.embedded.unet import ImageModel
from scripts.embedded.video import VideoModel, grow_unet

MAX_MEGABYTES = 12.0
DECODER = "diffusion_pytorch_model.safetensors"
_ABSENT = ("text_encoder_3", "tokenizer_3", "image_encoder", "feature_extractor")


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


def export_video(work: Path, image: Path, target: Path, step: int | None = None) -> Path:
    """Write the video model as a float16 TextToVideoSDPipeline.

    What it has in common with the image pipeline in `image` is linked to where the two lie side by side, as
    those that ship do, and copied elsewhere.
    """
    flat = UNet2DConditionModel.from_pretrained(image / "unet", torch_dtype=torch.float32)
    texts = CLIPTextModel.from_pretrained(image / "text_encoder")
    model = VideoModel(grow_unet(flat), texts)
    load_average(model, work / "video-training", step)
    target.mkdir(parents=True, exist_ok=True)
    model.unet.half().save_pretrained(target / "unet")
    make_video_scheduler().save_pretrained(target / "scheduler")
    shared = {
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    own = {
        "unet": ["diffusers", "UNet3DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    version = json.loads((image / "model_index.json").read_text())["_diffusers_version"]
    index = {"_class_name": "TextToVideoSDPipeline", "_diffusers_version": version, **shared, **own}
    (target / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    for part in shared:
        _share(image, target, part)
    make_readable(target)
    return target


def export_flow(work: Path, image: Path, target: Path, step: int | None = None) -> Path:
    """Write the flow-matching model as a float16 StableDiffusion3Pipeline.

    What it has in common with the image pipeline in `image` is linked to as the video model's is; the
    decoder's config is its own, as this pipeline wants a shift of latents, if only by 0.
    """
    encoders = build_encoders(image)
    configs: list[Any] = [encoder.config for encoder in encoders]
    widths, projected = [c.hidden_size for c in configs], [c.projection_dim for c in configs]
    network = build_transformer(sum(widths), sum(projected))
    load_average(network, work / "flow-training", step)
    target.mkdir(parents=True, exist_ok=True)
    network.half().save_pretrained(target / "transformer")
    make_flow_scheduler().save_pretrained(target / "scheduler")
    decoder = json.loads((image / "vae" / "config.json").read_text()) | {"shift_factor": 0.0}
    (target / "vae").mkdir(exist_ok=True)
    (target / "vae" / "config.json").write_text(json.dumps(decoder, indent=2) + "\n")
    _share(image, target, f"vae/{DECODER}")
    for encoder, end in zip(encoders, ("", "_2"), strict=True):
        encoder.half().save_pretrained(target / f"text_encoder{end}")
        _share(image, target, "tokenizer", f"tokenizer{end}")
    encoder, tokenizer = ["transformers", "CLIPTextModelWithProjection"], ["transformers", "CLIPTokenizer"]
    parts = {
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": encoder,
        "tokenizer": tokenizer,
        "text_encoder_2": encoder,
        "tokenizer_2": tokenizer,
    }
    absent = {name: [None, None] for name in _ABSENT}
    version = json.loads((image / "model_index.json").read_text())["_diffusers_version"]
    index = {"_class_name": "StableDiffusion3Pipeline", "_diffusers_version": version, **parts, **absent}
    (target / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    make_readable(target)
    return target


def _share(image: Path, target: Path, part: str, name: str | None = None) -> None:
    """Link to a part of the image pipeline where the two pipelines lie side by side; copy it elsewhere."""
    source, place = image / part, target / (name or part)
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    if image.parent.resolve() == target.parent.resolve():
        place.symlink_to(os.path.relpath(source.resolve(), place.parent.resolve()))
    elif source.is_dir():
        shutil.copytree(source, place)
    else:
        shutil.copy(source, place)


def export(work: Path, weights: Path, unet_step: int | None = None, reward_step: int | None = None) -> Path:
    """Write `weights/sd` and `weights/clip`; ValueError if together they are larger than 12 MB."""
    export_pipeline(work, weights / "sd", unet_step)
    export_clip(work, weights / "clip", reward_step)
    size = sum(path.stat().st_size for path in weights.rglob("*.safetensors")) / 1e6
    if size > MAX_MEGABYTES:
        raise ValueError(f"{weights}: {size:.2f} MB of weights, at most {MAX_MEGABYTES} are to ship")
    return weights
