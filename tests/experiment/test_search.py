"""What a search space may have, so that no method is tuned more than others."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.base import registry
from bench.base.errors import BenchError
from bench.experiment import method_files
from bench.experiment.search import MOST_BESIDES, OF_TRAINING, Law, against_protocol, space
from bench.experiment.settings import TrainConfig

RATE = "train.lr: {log: [3.0e-4, 3.0e-2]}"
CHOICE = Law(choice=(1, 2))


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty configs/methods for a test to fill."""
    monkeypatch.setattr("bench.base.layers.config_dir", lambda: tmp_path)
    cached = (registry.entries, method_files.file_blocks)
    for one in cached:
        one.cache_clear()
    (tmp_path / "methods").mkdir()
    yield tmp_path / "methods"
    for one in cached:
        one.cache_clear()


@pytest.mark.parametrize("name", sorted(registry.entries("method")))
def test_every_method_that_ships_has_a_space_by_the_protocol(name: str) -> None:
    assert list(against_protocol(space(name))) == []


def test_what_a_space_may_tune_of_training_are_settings_that_there_are() -> None:
    assert set(OF_TRAINING) < set(TrainConfig.model_fields)
    assert list(against_protocol({f"train.{OF_TRAINING[0]}": CHOICE, "k": CHOICE})) == []


@pytest.mark.parametrize(
    ("laws", "message"),
    [
        ("train.lr: {log: [1.0e-4, 3.0e-2]}", "train.lr: the learning rate of every method is drawn from"),
        ("train.lr: {uniform: [3.0e-4, 3.0e-2]}", "train.lr: the learning rate of every method"),
        (f"{RATE}, train.budget: {{choice: [9000]}}", "train.budget: is not a method's to tune; of train"),
        ("train.steps: {integer: [10, 90]}", "train.steps: is not a method's to tune"),
        ("train.evaluations: {choice: [1]}", "train.evaluations: is not a method's to tune"),
        ("train.eval_every: {choice: [1]}", "train.eval_every: is not a method's to tune"),
        ("train: {choice: [{budget: 9000}]}", "train: is not a method's to tune"),
        ("eval.seed: {choice: [1, 2]}", "eval.seed: is not a method's to tune: it is the same for all"),
        ("reward.target: {choice: [1]}", "reward.target: is not a method's to tune"),
        ("model.steps: {choice: [50]}", "model.steps: is not a method's to tune"),
        ("seeds: {choice: [1, 2, 3]}", "seeds: is not a method's to tune"),
        ("k: {log: [0, 1]}", "k: log takes positive numbers"),
    ],
)
def test_a_space_against_the_protocol_is_refused_with_file_and_key(
    configs: Path, laws: str, message: str
) -> None:
    (configs / "full_bp.yaml").write_text(f"search: {{{laws}}}")
    with pytest.raises(BenchError, match=r"methods/full_bp\.yaml: search\.") as error:
        space("full_bp")
    assert f"full_bp.yaml: search.{message}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rate", [True, False])
def test_three_settings_are_tuned_besides_the_learning_rate_whether_that_is_or_not(
    configs: Path, rate: bool
) -> None:
    own = ["a", "b", "train.samples_per_prompt", "c"]
    for count in (MOST_BESIDES, MOST_BESIDES + 1):
        keys = ", ".join([RATE] * rate + [f"{key}: {{choice: [1, 2]}}" for key in own[:count]])
        (configs / "full_bp.yaml").write_text(f"search: {{{keys}}}")
        if count == MOST_BESIDES:
            assert len(space("full_bp")) == MOST_BESIDES + rate
            continue
        with pytest.raises(BenchError, match=r"full_bp\.yaml: search\.c: is one too many: at most 3"):
            space("full_bp")
