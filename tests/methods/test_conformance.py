"""What every registered method must do, on random pipelines: a new plugin is tested the day it is registered.
Presets too, each with its own settings, on Stable Diffusion's kind alone."""

import inspect
import io
import re
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from pydantic import BaseModel

from bench.base import registry
from bench.base.strict import Strict
from bench.engine.batch import Improved, Report, Start
from bench.engine.chain import Chain
from bench.engine.method import InferenceMethod, Method
from bench.experiment.method_files import shipped_config
from bench.models.image import ImageChain
from bench.run.evaluate import noise, sample_images
from methods.rlr import Rlr, RlrConfig
from tests.support.pipelines import image_chain
from tests.support.sd3 import sd3_chain
from tests.support.toys import PROMPTS, Pattern, batch_of, engine_of, gradient
from tests.support.videos import video_chain

STEPS, COUNT = 6, 4  # room for the longest preset, h = 4, and for a truncation at 5
NAMES = list(registry.entries("method"))
CLASSES = [name for name, entry in registry.entries("method").items() if entry.base is None]
TRAINED = [name for name in NAMES if registry.load("method", name).trains]
TRAINED_CLASSES = [name for name in CLASSES if name in TRAINED]
IDLE = [name for name in NAMES if name not in TRAINED]
OTHERS = {"tiny-flow": sd3_chain, "tiny-video": video_chain}  # by the model whose settings are shipped
# Together they have every kind of step, of regression and of update.
ELSEWHERE = (
    "rlr",
    "ddpo",
    "grpo",
    "nft",
    "awm",
    "adjoint_matching",
    "drtune",
    "draft_lv",
    "alignprop",
    "vader",
)


def small() -> ImageChain:
    """A chain with the fewest layers."""
    return image_chain(steps=STEPS)


def fresh(name: str, model: str = "tiny") -> Method:
    """The method as shipped for an embedded model."""
    return registry.load("method", name)(shipped_config(name, model), STEPS)


def one_batch(method: Method, chain: Chain, reward: Any = None) -> list[Report]:
    """All updates of one batch; every one must have left a finite gradient."""
    engine = engine_of(chain, reward or Pattern(), micro_batch=2)
    reports = []
    for report in method.updates(engine, batch_of(COUNT)):
        assert all(p.grad is not None for p in chain.parameters())
        assert bool(torch.isfinite(gradient(chain)).all())
        assert bool((gradient(chain) != 0).any())
        reports.append(report)
        for p in chain.parameters():
            p.grad = None if len(reports) % 2 else p.grad  # a method must not add to what is there
    return reports


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model"),
    [(name, "tiny") for name in TRAINED] + [(name, model) for model in OTHERS for name in ELSEWHERE],
)
def test_one_batch_leaves_finite_gradients_and_reports_what_it_did(name: str, model: str) -> None:
    chain: Chain = OTHERS[model](steps=STEPS) if model in OTHERS else small()
    before = [p.detach().clone() for p in chain.parameters()]
    method = fresh(name, model)
    reports = one_batch(method, chain)
    assert reports
    assert all(torch.equal(p, b) for p, b in zip(chain.parameters(), before, strict=True))
    for report in reports:
        assert report.rewards.shape == (COUNT,)
        # Adjoint matching runs the reference, a control variate predicts, and neither says how often.
        rollout = COUNT * (STEPS + method.besides[0]) * chain.evaluations_per_step
        if report.control_fits or name == "adjoint_matching":
            assert rollout < report.forward <= 3 * rollout
        elif name == "drtune":  # which may stop early
            assert 0 < report.forward <= rollout
        else:
            assert report.forward == rollout
        assert 0 <= report.backward <= report.forward
        assert report.terms
        for term in report.terms.values():
            assert term.norm >= 0
            assert term.variance is None or term.variance >= 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in TRAINED if not fresh(n).needs_reward_grad])
def test_method_that_needs_no_reward_gradient_works_without_one(name: str) -> None:
    assert one_batch(fresh(name), small(), Pattern(detached=True))


@pytest.mark.slow
def test_rlr_without_first_order_term_needs_no_reward_gradient() -> None:
    method = Rlr(RlrConfig(h=1, fo=False), STEPS)
    assert not method.needs_reward_grad
    assert one_batch(method, small(), Pattern(detached=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED_CLASSES)
def test_state_that_went_through_a_checkpoint_continues_as_if_nothing_had_been(name: str) -> None:
    chain, first, second = small(), fresh(name), fresh(name)
    for step in range(2):
        for _ in first.updates(engine_of(chain, Pattern(), micro_batch=2), batch_of(COUNT, step)):
            with torch.no_grad():  # an optimizer's step, after which older parameters are others
                for p in chain.parameters():
                    p.add_(0.01)
    stream = io.BytesIO()
    torch.save(first.state, stream)
    stream.seek(0)
    second.state.update(torch.load(stream, weights_only=True))
    following = []
    for method in (first, second):
        engine = engine_of(chain, Pattern(), micro_batch=2)
        following.append([gradient(chain) for _ in method.updates(engine, batch_of(COUNT, 2))])
    assert all(torch.equal(a, b) for a, b in zip(*following, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED_CLASSES)
def test_the_same_seed_gives_the_same_gradient_and_another_another(name: str) -> None:
    chain = small()
    found = []
    for step in (0, 0, 1):
        next(iter(fresh(name).updates(engine_of(chain, Pattern(), micro_batch=4), batch_of(COUNT, step))))
        found.append(gradient(chain))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def improved(name: str, start: Start, micro_batch: int = 8) -> Improved:
    """What a method that trains nothing makes of the noise, without touching the model."""
    chain, method = small(), fresh(name)
    assert isinstance(method, InferenceMethod)
    before = [p.detach().clone() for p in chain.parameters()]
    engine = engine_of(chain, Pattern(), micro_batch=micro_batch)
    assert not list(method.updates(engine, batch_of(COUNT)))
    with torch.no_grad():  # as in an evaluation
        found = method.improve(engine, start)
    assert all(torch.equal(p, b) for p, b in zip(chain.parameters(), before, strict=True))
    assert all(p.grad is None for p in chain.parameters())
    return found


def start_of(rows: Sequence[int]) -> Start:
    """Some held-out pictures."""
    chain, pictures = small(), [(r // 2, r % 2) for r in rows]
    return Start(tuple(PROMPTS[p] for p, _ in pictures), noise(chain, 5, pictures), 5, tuple(pictures))


@pytest.mark.slow
@pytest.mark.parametrize("name", IDLE)
def test_method_that_trains_nothing_raises_the_reward_of_every_picture(name: str) -> None:
    start, chain, reward = start_of(range(4)), small(), Pattern()
    found = improved(name, start)
    assert found.noise.shape == start.noise.shape and found.noise.dtype == start.noise.dtype
    assert bool(torch.isfinite(found.noise).all()) and len(found.rewards) == len(start.prompts)
    assert found.forward > 0 and found.backward >= 0
    with torch.no_grad():
        was, now = (
            reward.score(sample_images(chain, start.prompts, x), start.prompts)
            for x in (start.noise, found.noise)
        )
    assert (now > was).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", IDLE)
def test_method_that_trains_nothing_treats_every_picture_by_itself_and_the_same_each_time(name: str) -> None:
    whole, again = (improved(name, start_of(range(4))).noise for _ in range(2))
    assert torch.equal(whole, again)
    assert torch.allclose(improved(name, start_of([2, 3])).noise, whole[2:], atol=1e-4)
    assert torch.allclose(improved(name, start_of(range(4)), micro_batch=3).noise, whole, atol=1e-4)


@pytest.mark.parametrize("name", CLASSES)
def test_method_describes_itself(name: str) -> None:
    cls = registry.load("method", name)
    text = inspect.getdoc(sys.modules[cls.__module__]) or ""
    assert re.search(r"(19|20)\d\d|arXiv", text), "the module's docstring names no source"
    assert re.search(r"[Dd]iffer|authors|code|not the", text), "the docstring does not say how it differs"
    assert issubclass(cls, Method)
    assert isinstance(fresh(name).biased, bool)
    assert isinstance(fresh(name).needs_reward_grad, bool)


def undescribed(config: type[BaseModel], prefix: str = "") -> list[str]:
    """Fields without a description, sections followed."""
    missing = []
    for name, field in config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            missing += undescribed(field.annotation, f"{prefix}{name}.")
        elif not field.description:
            missing.append(prefix + name)
    return missing


@pytest.mark.parametrize("name", CLASSES)
def test_every_setting_has_a_description_and_unknown_ones_are_refused(name: str) -> None:
    config = registry.load("method", name).Config
    assert issubclass(config, Strict)
    assert undescribed(config) == []
    with pytest.raises(ValueError, match="nonsense"):
        config.model_validate({"nonsense": 1})
