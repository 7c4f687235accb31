"""The real scorers with small random weights, written in their original files' format and key names."""

import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from bench.base import registry
from rewards.aes import FILE as AES_FILE
from rewards.aes import new_head
from rewards.hpsv2 import FILES
from rewards.imagereward import BERT
from rewards.imagereward import FILE as IMAGEREWARD_FILE
from rewards.shared import compat
from rewards.shared.checkpoint import fill_random
from tests.support.random_init import build_random_clip

CPU = torch.device("cpu")
PROMPTS = ["a dog face on a blue background", "a rocket on a red background", "a banana"]
NAMES = ("hpsv2", "imagereward", "pickscore", "aes", "clipscore")
TINY_HPS = "ViT-tiny-14"
_VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *("a", "dog", "face", "on", "blue", "background", "rocket", "red"),
]


def build(name: str, directory: Path) -> Path:
    """Weights of one scorer in a directory."""
    torch.manual_seed(0)
    return _BUILD[name](directory)


def load(name: str, directory: Path, **settings: Any) -> Any:
    """The reward on those weights."""
    values: dict[str, Any] = {"path": directory, "dtype": "float32", **_WHERE[name](directory), **settings}
    cls = registry.load("reward", name)
    with small_imagereward() if name == "imagereward" else nullcontext():
        return cls(cls.Config(**values), CPU)


_WHERE: dict[str, Callable[[Path], dict[str, Any]]] = {
    "hpsv2": lambda _: {"architecture": TINY_HPS},
    "imagereward": lambda directory: {"tokenizer": f"path:{directory}"},
    "pickscore": lambda _: {"processor": None},
    "aes": lambda directory: {"clip": f"path:{directory / 'clip'}"},
    "clipscore": lambda _: {},
}


def core(name: str, reward: Any) -> torch.nn.Module:
    """The module that sees a whole chunk of pictures."""
    if name == "hpsv2":
        return reward.model.visual
    if name == "imagereward":
        return reward.model.blip.visual_encoder
    return reward.model.vision_model


def pictures(*sizes: tuple[int, int]) -> list[Image.Image]:
    """Smooth 8-bit pictures of (height, width), each different."""
    found = []
    for seed, (height, width) in enumerate(sizes):
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
        found.append(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return found


def media_of(image: Image.Image) -> torch.Tensor:
    """[1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def batch(n: int, side: int = 40) -> tuple[torch.Tensor, list[str]]:
    """n pictures [n, 3, side, side] and a prompt for each."""
    media = torch.cat([media_of(p) for p in pictures(*[(side, side)] * n)])
    return media, [PROMPTS[i % len(PROMPTS)] for i in range(n)]


@contextmanager
def small_imagereward() -> Iterator[None]:
    """image-reward with a vision tower of two narrow layers; its class has no setting for that."""
    compat.image_reward()
    blip: Any = importlib.import_module("ImageReward.models.BLIP.blip_pretrain")
    vit: Any = importlib.import_module("ImageReward.models.BLIP.vit")
    before = blip.create_vit

    def create_vit(*_: object) -> tuple[Any, int]:
        return vit.VisionTransformer(img_size=224, patch_size=32, embed_dim=64, depth=2, num_heads=2), 64

    blip.create_vit = create_vit
    try:
        yield
    finally:
        blip.create_vit = before


def _hpsv2(directory: Path) -> Path:
    open_clip = compat.open_clip()
    vision = {"image_size": 56, "layers": 2, "width": 64, "head_width": 32, "patch_size": 14}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    table = directory / f"{TINY_HPS}.json"
    table.write_text(json.dumps({"embed_dim": 48, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(table)
    state = spread(open_clip.create_model(TINY_HPS)).state_dict()
    for file in FILES.values():
        torch.save({"epoch": 1, "state_dict": {k: v.half() for k, v in state.items()}}, directory / file)
    return directory


def _imagereward(directory: Path) -> Path:
    med = BERT | {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    med["vocab_size"] = len(_VOCABULARY) + 2  # [DEC] and [ENC]
    (directory / "med_config.json").write_text(json.dumps(med))
    (directory / "vocab.txt").write_text("\n".join(_VOCABULARY))
    with small_imagereward():
        model = compat.build_image_reward(directory / "med_config.json", None)
    torch.save(spread(model).state_dict(), directory / IMAGEREWARD_FILE)
    return directory


def _aes(directory: Path) -> Path:
    clip = build_random_clip(directory / "clip")
    config: Any = CLIPConfig.from_pretrained(clip)
    config.projection_dim = config.text_config.projection_dim = config.vision_config.projection_dim = 768
    CLIPModel(config).save_pretrained(clip)
    torch.save(fill_random(new_head(), torch.float32, "head").state_dict(), directory / AES_FILE)
    return directory


def spread(model: Any) -> Any:
    """Weights large enough that pictures and prompts of so small a model differ visibly."""
    return fill_random(model.eval(), torch.float32, "test")


_BUILD = {
    "hpsv2": _hpsv2,
    "imagereward": _imagereward,
    "aes": _aes,
    "pickscore": build_random_clip,
    "clipscore": build_random_clip,
}
