"""The export stage: put trained parts together as the directories that ship."""

import json
import os
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from scripts.embedded.clip import build_clip
from scripts.embedded.export import (
    make_readable,
    make_scheduler,
    make_video_scheduler,
    write_clip,
    write_pipeline,
)
from scripts.embedded.unet import ImageModel
from scripts.embedded.video import VideoModel, grow_unet

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
        _share(image / part, target / part)
    make_readable(target)
    return target


def _share(source: Path, target: Path) -> None:
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        shutil.rmtree(target)
    if source.parent.parent.resolve() == target.parent.parent.resolve():
        target.symlink_to(os.path.relpath(source.resolve(), target.parent.resolve()))
    else:
        shutil.copytree(source, target)


def export(work: Path, weights: Path, unet_step: int | None = None, reward_step: int | None = None) -> Path:
    """Write `weights/sd` and `weights/clip`; ValueError if together they are larger than 12 MB."""
    export_pipeline(work, weights / "sd", unet_step)
    export_clip(work, weights / "clip", reward_step)
    size = sum(path.stat().st_size for path in weights.rglob("*.safetensors")) / 1e6
    if size > MAX_MEGABYTES:
        raise ValueError(f"{weights}: {size:.2f} MB of weights, at most {MAX_MEGABYTES} are to ship")
    return weights
