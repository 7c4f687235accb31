"""Scorers in the published widths: in full depth on fake tensors, with one layer in numbers."""

import importlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from bench.base import registry
from bench.base.networks import networks_in
from bench.experiment.settings import Choice
from bench.measure.cost.fake_model import Faker
from rewards import imagereward
from rewards.shared import compat, random_clip

ONE_LAYER_HPS = "ViT-H-14-one-layer"
CONFIGS = {
    "action": {"VideoMAEConfig": 1},
    "objects": {"YolosConfig": 2},  # between two layers it adds positions
    "xclip": {"XCLIPTextConfig": 1, "XCLIPVisionConfig": 1},
}


def shapes(source: str, name: str, media: torch.Tensor, prompts: list[str]) -> tuple[int, Any, Any]:
    """(parameters, shape of the scores, shape of their gradient) of a reward, without arithmetic."""
    faker, chosen = Faker(), registry.load("reward", name).Config(source=source).model_dump(mode="json")
    with faker.working():
        reward = faker.reward(Choice(name=name, config=chosen))
        pixels = faker.mode.from_tensor(media).requires_grad_()
        with faker.mode:
            scores = reward.score(pixels, prompts)
            (slope,) = torch.autograd.grad(scores.sum(), pixels)
    networks = {id(network): network for _, network in networks_in(reward)}.values()
    parameters = {id(p): p.numel() for network in networks for p in network.parameters()}
    return sum(parameters.values()), scores.shape, slope.shape


def no_network(*_: object) -> None:
    """Stands for connecting a socket."""
    raise AssertionError("random weights went to the network")


def scores_and_steers(
    name: str,
    source: str,
    media: Tensor,
    prompts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    **settings: Any,
) -> Any:
    """The reward with random weights, whose scores [B] and gradients of every picture are finite numbers."""
    monkeypatch.setattr("socket.socket.connect", no_network)
    cls = registry.load("reward", name)
    reward = cls(cls.Config(source=source, **settings), torch.device("cpu"))
    media.requires_grad_()
    score = reward.score(media, prompts)
    (slope,) = torch.autograd.grad(score.sum(), media)
    assert score.shape == (len(prompts),) and torch.isfinite(score).all()
    assert torch.isfinite(slope).all() and (slope.flatten(1).norm(dim=1) > 0).all()
    return reward


def one_layer(name: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """From now on random weights of a scorer have its widths and a layer in each tower. Returns settings:
    in float32, since CPUs that emulate half precision take half a minute for such a layer."""
    return {"dtype": "float32", **_CUT.get(name, _clip)(name, directory, monkeypatch)}


def _transformers(name: str, _: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    for config, layers in CONFIGS[name].items():
        cut = partial(getattr(transformers, config), num_hidden_layers=layers)
        monkeypatch.setattr(transformers, config, cut)
    return {}


def _clip(_: str, __: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    for architecture, shape in random_clip.ARCHITECTURES.items():
        towers = {tower: (shape[tower][0], 1, *shape[tower][2:]) for tower in ("text", "vision")}
        monkeypatch.setitem(random_clip.ARCHITECTURES, architecture, shape | towers)
    return {}


def _hpsv2(_: str, directory: Path, __: pytest.MonkeyPatch) -> dict[str, Any]:
    open_clip = compat.open_clip()
    shape = open_clip.get_model_config("ViT-H-14")
    cut = {key: shape[key] | {"layers": 1} for key in ("vision_cfg", "text_cfg")}
    table = directory / f"{ONE_LAYER_HPS}.json"
    table.write_text(json.dumps(shape | cut))
    open_clip.add_model_config(table)
    return {"architecture": ONE_LAYER_HPS}


def _imagereward(_: str, __: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    compat.image_reward()
    blip: Any = importlib.import_module("ImageReward.models.BLIP.blip_pretrain")
    vit: Any = importlib.import_module("ImageReward.models.BLIP.vit")
    tower = partial(vit.VisionTransformer, patch_size=16, embed_dim=1024, depth=1, num_heads=16)
    monkeypatch.setattr(blip, "create_vit", lambda _, size, *__, **___: (tower(img_size=size), 1024))
    monkeypatch.setitem(imagereward.BERT, "num_hidden_layers", 1)
    return {}


_CUT: dict[str, Callable[[str, Path, pytest.MonkeyPatch], dict[str, Any]]] = {
    "hpsv2": _hpsv2,
    "imagereward": _imagereward,
    **dict.fromkeys(CONFIGS, _transformers),
}
