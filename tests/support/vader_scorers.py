"""VADER's rewards with small random weights, in the format of the published checkpoints."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPTokenizer,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    XCLIPConfig,
    XCLIPModel,
    XCLIPTextConfig,
    XCLIPVisionConfig,
    YolosConfig,
    YolosForObjectDetection,
)

from bench.base import registry
from scripts.embedded.tokenizer import special_ids
from tests.support.random_init import build_random_clip
from tests.support.scorers import spread

CPU = torch.device("cpu")
NAMES = ("action", "objects", "xclip")
VIDEO = ("action", "xclip")
ACTIONS = ("jogging", "playing guitar", "guitar", "flipping pancake")
CLASSES = ("person", "book", "N/A", "traffic light")
PROMPTS = ["a dog playing guitar on a blue background", "a rocket jogging", "a banana with a Guitar"]
SIDE, FRAMES = 32, 4
_TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
_MEAN: dict[str, Any] = {
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 2,
}


def build(name: str, directory: Path) -> Path:
    """Weights of one reward in a directory."""
    _BUILD[name](directory)
    return directory


def load(name: str, directory: Path, **settings: Any) -> Any:
    """The reward on those weights."""
    values = {
        "path": directory,
        "dtype": "float32",
        **({"size": 64} if name == "objects" else {}),
        **settings,
    }
    cls = registry.load("reward", name)
    return cls(cls.Config(**values), CPU)


def batch(
    name: str, count: int = 3, frames: int = FRAMES, height: int = 40, width: int = 52
) -> tuple[torch.Tensor, list[str]]:
    """(smooth videos or images with a border to clipping, a prompt for each)."""
    generator = torch.Generator().manual_seed(2)
    shape = (count, frames, 3, 6, 6) if name in VIDEO else (count, 1, 3, 6, 6)
    coarse = torch.rand(shape, generator=generator)
    media = torch.nn.functional.interpolate(coarse.flatten(0, 1), size=(height, width), mode="bilinear")
    media = ((media * 255).round() / 255).unflatten(0, shape[:2])
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(count)]
    return (media if name in VIDEO else media[:, 0]), prompts


def _preprocessor(directory: Path, **settings: Any) -> None:
    (directory / "preprocessor_config.json").write_text(json.dumps(_MEAN | settings))


def _labels(config: Any, labels: tuple[str, ...]) -> Any:
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: n for n, label in enumerate(labels)}
    return config


def _action(directory: Path) -> None:
    config = VideoMAEConfig(image_size=SIDE, patch_size=8, num_frames=FRAMES, tubelet_size=2, **_TOWER)
    spread(VideoMAEForVideoClassification(_labels(config, ACTIONS))).save_pretrained(directory)
    crop = {"height": SIDE, "width": SIDE}
    _preprocessor(directory, size={"shortest_edge": SIDE}, crop_size=crop)


def _objects(directory: Path) -> None:
    config = YolosConfig(image_size=[64, 96], patch_size=16, num_detection_tokens=5, **_TOWER)
    spread(YolosForObjectDetection(_labels(config, CLASSES))).save_pretrained(directory)
    _preprocessor(directory, size={"shortest_edge": 64, "longest_edge": 128})


def _xclip(directory: Path) -> None:
    build_random_clip(directory)  # for its tokenizer
    tokenizer = CLIPTokenizer.from_pretrained(directory)
    text = XCLIPTextConfig(
        vocab_size=len(tokenizer), max_position_embeddings=16, **_TOWER, **special_ids(tokenizer)
    )
    vision = XCLIPVisionConfig(
        image_size=SIDE,
        patch_size=8,
        num_frames=FRAMES,
        mit_hidden_size=16,
        mit_intermediate_size=32,
        mit_num_attention_heads=2,
        **_TOWER,
    )
    config = XCLIPConfig(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=16,
        prompt_num_attention_heads=2,
    )
    model = spread(XCLIPModel(config))
    with torch.no_grad():
        model.prompts_generator.alpha.fill_(0.5)
    model.save_pretrained(directory)
    crop = {"height": SIDE, "width": SIDE}
    _preprocessor(directory, size={"shortest_edge": SIDE}, crop_size=crop)


_BUILD: dict[str, Callable[[Path], None]] = {"action": _action, "objects": _objects, "xclip": _xclip}
