"""The flow model's recipe: what the transformer starts as, its texts and its loss."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from bench.models.embedded import SD_DIR, WEIGHTS_DIR
from scripts.embedded import flow
from scripts.embedded.assemble import export_flow
from scripts.embedded.compose import BACKGROUND_NAMES, Library
from scripts.embedded.data import Picture
from scripts.embedded.flow import FlowData, build_encoders, build_transformer, encode_words, velocity_loss
from scripts.embedded.flow_samples import load_chain, make_naming_sheets
from scripts.embedded.loop import save_atomically
from scripts.embedded.placement import Placement
from scripts.embedded.unet import LatentCache, token_ids
from tests.models.test_image import picture


@pytest.fixture(scope="module")
def encoders() -> list[CLIPTextModelWithProjection]:
    return build_encoders(SD_DIR)


def test_a_fresh_transformer_predicts_nothing_and_every_layer_learns() -> None:
    torch.manual_seed(0)
    network = build_transformer(12, 10, width=16, heads=2, layers=2)
    rng = torch.Generator().manual_seed(1)
    x, words, pooled = torch.randn(2, 8, 8, 8), torch.randn(2, 5, 12), torch.randn(2, 10)
    out = network(x, words, pooled, torch.tensor([500.0, 20.0])).sample
    assert torch.equal(out, torch.zeros_like(out))
    optimizer = flow.make_optimizer(network)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    for _ in range(4):  # gates open one after the other
        optimizer.zero_grad()
        velocity_loss(network, x, words, pooled, rng).backward()
        optimizer.step()
    still = {name for name, p in network.named_parameters() if torch.equal(p, before[name])}
    # Softmax does not see what is added to all keys, and nothing reads the words after the last block.
    unused = ("to_k.bias", "add_k_proj.bias", "blocks.1.attn.add_q_proj.bias")
    assert {name for name in still if not name.endswith(unused)} == set()


def test_words_are_those_of_both_encoders(encoders: list[CLIPTextModelWithProjection]) -> None:
    ids = token_ids(CLIPTokenizer.from_pretrained(SD_DIR / "tokenizer"), ["a red apple", ""])
    states, pooled = encode_words(encoders, ids)
    assert states.shape == (2, 24, 256)
    assert pooled.shape == (2, 96 + 128)
    second = encoders[1](input_ids=ids)
    rows = torch.arange(2)
    ends = (ids == ids[0, -1]).int().argmax(dim=1)
    torch.testing.assert_close(pooled[:, 96:], second.last_hidden_state[rows, ends])


class Exact(nn.Module):
    """The velocity itself, from what the network is given."""

    def __init__(self, latents: Tensor) -> None:
        super().__init__()
        self.latents = latents

    def forward(self, hidden_states: Tensor, timestep: Tensor, **_: Tensor) -> nn.Module:
        sigma = (timestep / 1000).view(-1, 1, 1, 1)
        self.sample = (hidden_states - self.latents) / sigma
        return self


def test_the_loss_is_that_of_the_velocity() -> None:
    rng = torch.Generator().manual_seed(0)
    latents = torch.randn(64, 8, 8, 8, generator=rng)
    words, pooled = torch.zeros(64, 1, 1), torch.zeros(64, 1)
    assert float(velocity_loss(Exact(latents), latents, words, pooled, rng)) < 1e-6
    assert float(velocity_loss(Exact(latents + 0.1), latents, words, pooled, rng)) > 1e-3


def test_texts_are_true_of_their_pictures_and_a_tenth_of_them_is_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flow, "CACHE", 2)
    rows = [Picture("0", name, (), "noto") for name in ("rocket", "fox")]
    backgrounds = [[0, 1], [2, 3]]
    cache = LatentCache(torch.arange(4.0).view(2, 2, 1, 1, 1), backgrounds, [[Placement()] * 2] * 2)
    texts, which = flow.draw_captions(
        Library(torch.zeros(2, 4, 64, 64), rows), cache, np.random.default_rng(0)
    )
    assert texts[0] == ""
    assert which.min() > 0
    for i, row in enumerate(rows):
        for k in range(2):
            for text in (texts[int(t)] for t in which[i, k]):
                others = {other.name for other in rows} - {row.name}
                colours = set(BACKGROUND_NAMES) - {BACKGROUND_NAMES[backgrounds[i][k]]}
                assert not any(word in text.split() for word in others | colours), text
    codes = torch.arange(float(len(texts)))
    data = FlowData(cache.latents, which, codes.view(-1, 1, 1), codes.view(-1, 1))
    latents, states, pooled = data.draw(4000, np.random.default_rng(1))
    assert states.shape == (4000, 2, 1)
    assert torch.equal(states[:, 1], torch.zeros(4000, 1))
    assert torch.equal(states[:, 0], pooled)
    assert float((pooled == 0).float().mean()) == pytest.approx(0.1, abs=0.02)
    for latent, text in zip(latents.flatten().long().tolist(), pooled[:, 0].long().tolist(), strict=True):
        assert text == 0 or text in which.view(4, -1)[latent]


@pytest.mark.slow
def test_what_is_exported_makes_the_same_pictures_in_diffusers_and_here(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_transformer(256, 96 + 128)
    weights = {name: p.detach() + 0.1 * torch.randn_like(p) for name, p in network.named_parameters()}
    save_atomically(weights, tmp_path / "flow-training" / "step-000001.pt")
    directory = export_flow(tmp_path, SD_DIR, tmp_path / "weights" / "flow", step=1)
    assert not any(
        path.is_symlink() for path in directory.rglob("*")
    )  # it lies elsewhere than the image model
    pipeline: Any = StableDiffusion3Pipeline.from_pretrained(
        directory, torch_dtype=torch.float32, text_encoder_3=None, tokenizer_3=None
    )
    pipeline.set_progress_bar_config(disable=True)
    chain = load_chain(directory, 3, 2.0)
    x, texts = torch.randn(2, *chain.latent_shape), ["a red apple", "a fox on a blue background"]
    images: Any = pipeline(
        texts, latents=x, num_inference_steps=3, guidance_scale=2.0, output_type="pt", height=64, width=64
    )
    ours = picture(chain, x, texts)
    assert float(ours.std()) > 0.05
    torch.testing.assert_close(ours, images.images, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_sheets_for_naming_show_the_same_objects_in_other_orders(tmp_path: Path) -> None:
    key = json.loads(make_naming_sheets(WEIGHTS_DIR, tmp_path, objects=3).read_text())
    assert sorted(sheet["model"] for sheet in key.values()) == [
        f"{name}, {steps} steps, guidance {g}"
        for name, steps, g in (("flow", 10, 1), ("flow", 10, 2), ("sd", 20, 1), ("sd", 20, 2))
    ]
    shown = [tuple(sheet["objects"]) for sheet in key.values()]
    assert len({frozenset(objects) for objects in shown}) == 1 and len(set(shown)) > 1
    sheets = {(tmp_path / f"naming-{number}.png").read_bytes() for number in key}
    assert len(sheets) == 4
