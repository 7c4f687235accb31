"""A run and `bench fetch` resolve a reward's settings in the same way."""

import pytest

from bench.base.errors import BenchError
from bench.experiment.ingredients import named, reward_ingredient
from bench.experiment.overrides import typed
from bench.experiment.request import Options, build
from bench.experiment.resolve import resolve_all


@pytest.mark.parametrize(
    ("reward", "settings"),
    [
        ("clip", ["clip.chunk=3"]),
        ("clip:1,jpeg:0.5", ["clip.chunk=3"]),
        ("python:statistics.fmean", ["python.differentiable=false"]),
    ],
)
def test_a_run_and_an_ingredient_have_the_same_settings(reward: str, settings: list[str]) -> None:
    config = reward_ingredient(reward, typed(settings)).config
    assert config is not None
    experiment = build(Options(methods="ddpo", reward=reward, settings=settings))
    (chosen,) = {
        cell.config.training.reward.model_dump_json()
        for cell in resolve_all(experiment.combinations, fetch=False)
        if cell.config.training is not None
    }
    assert config.model_dump_json() in chosen


def test_the_trained_reward_has_a_section_of_its_own() -> None:
    experiment = build(Options(methods="ddpo", settings=["reward.chunk=2"]))
    training = resolve_all(experiment.combinations, fetch=False)[1].config.training
    assert training is not None and training.reward.config["chunk"] == 2
    with pytest.raises(BenchError, match="'reward' is not among what is named"):
        named(None, "clip", None, ["reward.chunk=2"])


def test_settings_of_a_section_must_be_a_mapping() -> None:
    experiment = build(Options(methods="rlr", settings=["rlr.train=3"]))
    with pytest.raises(BenchError, match=r"--set rlr.train=3: rlr.train: expected a mapping, found 3"):
        resolve_all(experiment.combinations, fetch=False)
