import textwrap

import pytest
import torch

from bench.base import registry
from bench.base.errors import BenchError
from bench.data.need import needs_of
from bench.engine.reward import is_differentiable
from rewards.clip import ClipConfig, ClipReward
from rewards.colourfulness import ColourfulnessConfig, ColourfulnessReward
from rewards.jpeg import JpegConfig, JpegReward
from rewards.python_function import PythonConfig, PythonReward
from rewards.weighted_sum import Summand, WeightedConfig, WeightedReward

CPU = torch.device("cpu")
FUNCTIONS = """
    import numpy as np

    def brightness(images, prompts):
        return images.flatten(1).mean(dim=1)

    def column(images, prompts):
        return brightness(images, prompts)[:, None]

    def lengths(images, prompts):
        assert not images.requires_grad
        return [len(prompt) for prompt in prompts]

    def array(images, prompts):
        return np.asarray(lengths(images, prompts))

    def short(images, prompts):
        return [0.5]

    def one(images, prompts):
        return images.mean()

    def words(images, prompts):
        return ["good"] * len(prompts)

    def nothing(images, prompts):
        return None

    def crash(images, prompts):
        raise KeyError("score")

    number = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch) -> str:
    """The name of a module in the working directory."""
    (tmp_path / "my_reward_fn.py").write_text(textwrap.dedent(FUNCTIONS))
    (tmp_path / "broken_reward_fn.py").write_text("import no_such_package_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_reward_fn"


def python(function: str, **settings: bool) -> PythonReward:
    return PythonReward(PythonConfig(function=function, **settings), CPU)


def media(n: int = 3) -> torch.Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))


PROMPTS = ["a", "a dog", "a dog face"]


@pytest.mark.parametrize("name", ["lengths", "array"])
def test_a_function_may_return_a_list_or_an_array(mine, name):
    scores = python(f"{mine}.{name}").score(media().requires_grad_(), PROMPTS)
    assert scores.tolist() == [1.0, 5.0, 10.0]
    assert scores.dtype == torch.float32 and not scores.requires_grad


@pytest.mark.parametrize("name", ["brightness", "column"])
def test_a_differentiable_function_keeps_its_gradient(mine, name):
    images = media().requires_grad_()
    scores = python(f"{mine}.{name}", differentiable=True).score(images, PROMPTS)
    assert scores.shape == (3,)
    (slope,) = torch.autograd.grad(scores.sum(), images)
    assert torch.allclose(slope, torch.full_like(slope, 1 / (3 * 16 * 16)))
    assert not python(f"{mine}.{name}").score(images, PROMPTS).requires_grad


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_reward_fn.short", r"expected 3 numbers, got shape \[1\]"),
        ("my_reward_fn.one", r"expected 3 numbers, got shape \[\]"),
        ("my_reward_fn.words", "expected 3 numbers, got list .*good"),
        ("my_reward_fn.nothing", "expected 3 numbers, got NoneType"),
        ("my_reward_fn.crash", "the function failed: KeyError: 'score'"),
        ("my_reward_fn.brightnes", "has no function 'brightnes'. Did you mean 'brightness'"),
        ("my_reward_fn.number", "is no function but int 3"),
        ("no_such_reward_module.fn", "cannot import no_such_reward_module .*ModuleNotFoundError"),
        ("broken_reward_fn.fn", "cannot import broken_reward_fn .*no_such_package_at_all"),
    ],
)
def test_a_function_that_does_not_fit_is_named_with_the_reason(mine, name, message):
    with pytest.raises(BenchError, match=message):
        python(name).score(media(), PROMPTS)


def test_a_promised_gradient_that_is_not_there_is_an_error(mine):
    with pytest.raises(BenchError, match="has no gradient to the pictures"):
        python(f"{mine}.short", differentiable=True).score(media(1).requires_grad_(), PROMPTS[:1])


@pytest.mark.parametrize("name", ["fn", "my module.fn", "a..b", "a.b()"])
def test_a_name_that_is_not_dotted_is_refused(name):
    with pytest.raises(ValueError, match=r"not of the form module.function"):
        PythonConfig(function=name)


def test_settings_decide_whether_there_is_a_gradient_and_else_the_class():
    assert is_differentiable(PythonReward, PythonConfig(function="a.b", differentiable=True))
    assert not is_differentiable(PythonReward, PythonConfig(function="a.b"))
    assert is_differentiable(ClipReward, ClipConfig())
    assert not is_differentiable(JpegReward, JpegConfig())
    smooth, rough = Summand(name="colourfulness"), Summand(name="jpeg")
    assert is_differentiable(WeightedReward, WeightedConfig(terms=(smooth,)))
    assert not is_differentiable(WeightedReward, WeightedConfig(terms=(smooth, rough)))


def test_a_sum_weighs_its_terms_and_turns_those_whose_low_scores_are_good(mine, monkeypatch):
    monkeypatch.setattr(PythonReward, "higher_is_better", False)
    low = Summand(name="python", weight=2.0, config={"function": f"{mine}.lengths"})
    colour = Summand(name="colourfulness", weight=0.5)
    total = WeightedReward(WeightedConfig(terms=(low, colour)), CPU).score(media(), PROMPTS)
    expected = ColourfulnessReward(ColourfulnessConfig(), CPU).score(media(), PROMPTS) * 0.5
    assert torch.allclose(total, expected - 2.0 * torch.tensor([1.0, 5.0, 10.0]))


def test_a_sum_of_differentiable_terms_has_the_sum_of_their_gradients(mine):
    terms = (
        Summand(name="colourfulness", weight=0.5),
        Summand(
            name="python", weight=-3.0, config={"function": f"{mine}.brightness", "differentiable": True}
        ),
    )
    config = WeightedConfig(terms=terms)
    assert config.differentiable
    images = media().requires_grad_()
    (slope,) = torch.autograd.grad(WeightedReward(config, CPU).score(images, PROMPTS).sum(), images)
    alone = ColourfulnessReward(ColourfulnessConfig(), CPU).score(images, PROMPTS).sum()
    (colour,) = torch.autograd.grad(alone, images)
    assert torch.allclose(slope, 0.5 * colour - 3.0 / images[0].numel(), atol=1e-6)


def test_a_term_takes_its_shipped_settings_then_its_own():
    assert Summand(name="jpeg", config={"quality": 50}).settings() == JpegConfig(quality=50)
    with pytest.raises(BenchError, match=r"qualty: unknown key. Did you mean 'quality'"):
        Summand(name="jpeg", config={"qualty": 50}).settings()
    with pytest.raises(BenchError, match=r"unknown reward 'jpg'. Did you mean 'jpeg'"):
        Summand(name="jpg").settings()


def test_a_sum_needs_what_its_terms_need():
    terms = (
        Summand(name="hpsv2"),
        Summand(name="jpeg"),
        Summand(name="aes", config={"source": "random:ViT-L-14"}),
    )
    (need,) = needs_of(WeightedConfig(terms=terms), "reward weighted", "reward")
    assert (need.name, need.setting) == ("reward weighted term 1 hpsv2", "hpsv2.path")


def test_the_names_are_registered():
    assert registry.load("reward", "weighted") is WeightedReward
    assert registry.load("reward", "python") is PythonReward
