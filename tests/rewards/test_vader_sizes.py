"""VADER's rewards in their published sizes, with random weights."""

import pytest

from bench.base import registry
from tests.support.full_size import one_layer, scores_and_steers, shapes
from tests.support.vader_scorers import (
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
    steered(name, monkeypatch, **one_layer(name, tmp_path, monkeypatch))


@pytest.mark.full_size
@pytest.mark.parametrize("name", NAMES)
def test_at_full_size_random_weights_score_and_steer_without_a_network(name, monkeypatch):
    reward = steered(name, monkeypatch)
    assert sum(p.numel() for p in reward.model.parameters()) == registry.load("reward", name).parameters


def steered(name, monkeypatch, **settings):
    size = {"size": 128} if name == "objects" else {}
    source = registry.load("reward", name).Config.random_source
    return scores_and_steers(name, source, *batch(name, 1), monkeypatch, **size, **settings)
