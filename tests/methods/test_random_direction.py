"""The null row: directions that know nothing of the reward."""

from pathlib import Path

import pytest
import torch

from bench.base.errors import BenchError
from bench.engine.batch import Report
from bench.engine.engine import Engine
from bench.engine.reward import Reward
from bench.experiment.request import Options, build
from bench.experiment.resolve import only_trained, resolve_all
from bench.measure.gradients.plan import estimating
from methods.random_direction import RandomDirection, RandomDirectionConfig
from tests.support.toy import ToyChain
from tests.support.toys import Bowl, Pattern, batch_of, gradient


def drawn(
    step: int = 0, seed: int = 0, reward: Reward | None = None, micro_batch: int = 4
) -> tuple[torch.Tensor, Report]:
    chain = ToyChain(3, 2, noise=0.7)
    engine = Engine(chain, reward or Bowl(), seed=seed, micro_batch=micro_batch)
    (report,) = RandomDirection(RandomDirectionConfig(), 3).updates(engine, batch_of(4, step))
    return gradient(chain), report


def test_the_direction_depends_on_seed_and_step_alone() -> None:
    first = drawn()[0]
    assert torch.equal(drawn(micro_batch=1)[0], first)
    assert torch.equal(drawn(reward=Pattern(detached=True))[0], first)
    assert not torch.equal(drawn(1)[0], first) and not torch.equal(drawn(seed=1)[0], first)


def test_directions_are_standard_normal() -> None:
    found = torch.cat([drawn(step)[0] for step in range(60)])
    error = len(found) ** -0.5
    assert abs(float(found.mean())) < 4 * error
    assert abs(float(found.square().mean()) - 1) < 4 * 2**0.5 * error


def test_it_takes_a_rollout_and_no_backward() -> None:
    report = drawn()[1]
    assert (report.forward, report.backward, report.again) == (4 * 3, 0, 0)
    assert report.terms["random"].norm > 0


def test_there_is_no_gradient_to_profile(tmp_path: Path) -> None:
    experiment = build(Options(methods="random-direction,ddpo", model="tiny", out=tmp_path))
    cells = resolve_all(experiment.combinations)
    trained = only_trained(cells, named=True)
    assert [cell.config.label for cell in estimating(trained, named=False)] == ["ddpo"]
    with pytest.raises(BenchError, match="'random-direction' estimates nothing"):
        estimating(trained, named=True)
