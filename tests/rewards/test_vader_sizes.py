"""VADER's rewards in their published sizes, with random weights."""

import math

import pytest
import torch

from bench.base import registry
from tests.rewards.test_scorers import no_network
from tests.support.full_size import one_layer, shapes
from tests.support.vader_scorers import (
    CPU,
    NAMES,
    batch,
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_at_full_size_parameters_are_the_published_ones_and_scores_and_gradients_have_their_shapes(name):
    media, prompts = batch(name, 1)
    source = registry.load("reward", name).Config.random_source
    assert shapes(source, name, media, prompts) == (
        registry.load("reward", name).parameters,
        (1,),
        media.shape,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_at_full_width_with_one_layer_random_weights_score_and_steer_without_a_network(
    name, tmp_path, monkeypatch
):
    scores_and_steers(name, monkeypatch, **one_layer(name, tmp_path, monkeypatch))


@pytest.mark.full_size
@pytest.mark.parametrize("name", NAMES)
def test_at_full_size_random_weights_score_and_steer_without_a_network(name, monkeypatch):
    reward = scores_and_steers(name, monkeypatch)
    assert sum(p.numel() for p in reward.model.parameters()) == registry.load("reward", name).parameters


def scores_and_steers(name, monkeypatch, **settings):
    monkeypatch.setattr("socket.socket.connect", no_network)
    cls = registry.load("reward", name)
    size = {"size": 128} if name == "objects" else {}
    reward = cls(cls.Config(source=cls.Config.random_source, **size, **settings), CPU)
    media, prompts = batch(name, 1)
    media.requires_grad_()
    score = reward.score(media, prompts)
    (slope,) = torch.autograd.grad(score.sum(), media)
    assert math.isfinite(score.item()) and torch.isfinite(slope).all()
    assert slope.norm() > 0
    return reward
