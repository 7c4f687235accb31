"""DOODL: its gradient against one graph of the whole chain, its steps by the formula, its cells."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.batch import Start
from bench.engine.chain import Chain, State
from bench.engine.engine import Engine
from bench.engine.random_streams import normal
from bench.engine.reward import Reward
from bench.run.evaluate import noise, sample_images
from methods.doodl import Doodl, DoodlConfig
from tests.support.pipelines import image_chain
from tests.support.saved import saved_bytes
from tests.support.toy import ToyChain
from tests.support.toys import PROMPTS, Bowl, Distance, Pattern, engine_of

PICTURES = ((0, 0), (0, 1), (1, 0), (3, 1))


TEXTS = tuple(PROMPTS[p] for p, _ in PICTURES)


def start_of(chain: Chain) -> Start:
    """Some held-out pictures."""
    return Start(TEXTS, noise(chain, 9, PICTURES), 9, PICTURES)


def joint_gradient(chain: Chain, reward: Reward, x: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards and dR/dx_T with the graph of all steps, decoder and reward in one piece."""
    x = x.clone().requires_grad_()
    scores = reward.score(sample_images(chain, TEXTS, x), TEXTS)
    return scores.detach(), torch.autograd.grad(scores.sum(), x)[0]


CHAINS: dict[str, Any] = {
    "toy": lambda: (ToyChain(6, 3), Bowl()),
    "toy, multistep": lambda: (ToyChain(6, 3, multistep=0.4), Bowl()),
    "images, ddim": lambda: (image_chain(), Pattern()),
    "images, dpmpp": lambda: (image_chain(solver="dpmpp", steps=6), Pattern()),
    "images, v-prediction": lambda: (image_chain(prediction_type="v_prediction"), Pattern()),
}


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [1, 3, 8])
@pytest.mark.parametrize("name", CHAINS)
def test_the_gradient_is_autograds_through_the_whole_chain(name: str, micro_batch: int) -> None:
    chain, reward = CHAINS[name]()
    x = noise(chain, 9, PICTURES)
    scores, slope = joint_gradient(chain, reward, x)
    with torch.no_grad():
        found = engine_of(chain, reward, micro_batch=micro_batch).noise_gradient(TEXTS, x)
    assert torch.allclose(found.rewards, scores, rtol=1e-4, atol=1e-4)
    assert torch.allclose(found.gradient, slope, rtol=1e-3, atol=1e-5 * slope.abs().max().item())
    assert (slope.flatten(1).norm(dim=1) > 0).all()
    each = len(TEXTS) * chain.steps * chain.evaluations_per_step
    assert (found.forward, found.backward) == (each, each)
    assert all(p.grad is None for p in chain.parameters())


class Frames(ToyChain):
    """The closed-form chain with latents shaped as a video's: [channels, frames, height, width]."""

    def __init__(self) -> None:
        super().__init__(4, 24)
        self.latent_shape = (2, 3, 2, 2)

    def prior(self, noise: Tensor) -> State:
        return super().prior(noise.flatten(1))

    def decode(self, x: Tensor, frames: Tensor | None = None) -> Tensor:
        assert frames is None
        return torch.sigmoid(x).unflatten(1, (2, 3, 2, 2)).transpose(1, 2)


class Film(Bowl):
    """Of all frames together."""

    media = "video"


def test_latents_may_have_any_shape() -> None:
    chain, reward = Frames(), Film()
    start = start_of(chain)
    _, slope = joint_gradient(chain, reward, start.noise)
    engine = engine_of(chain, reward)
    assert torch.allclose(engine.noise_gradient(TEXTS, start.noise).gradient, slope, rtol=1e-4, atol=1e-6)
    found = Doodl(DoodlConfig(steps=3, lr=0.02), chain.steps).improve(engine, start)
    assert found.noise.shape == start.noise.shape


def test_what_a_gradient_took_is_known_before_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU no graph is kept before that."""
    chain, ended = ToyChain(3, 4), list[None]()
    engine = engine_of(chain, Bowl())
    monkeypatch.setattr(engine.graphs, "end_batch", lambda: ended.append(None))
    engine.noise_gradient(TEXTS, start_of(chain).noise)
    assert len(ended) == 1


@pytest.mark.slow
def test_one_steps_graph_at_a_time_is_kept() -> None:
    def peak(steps: int) -> int:
        chain = image_chain(steps=steps)
        engine, start = engine_of(chain, Pattern()), start_of(chain)
        with saved_bytes() as held:
            engine.noise_gradient(TEXTS, start.noise)
        return held["peak"]

    assert peak(8) == peak(2)


def by_hand(engine: Engine, start: Start, config: DoodlConfig, norm: Tensor | None) -> Tensor:
    """The formula of the module's docstring, a picture at a time."""
    rows = []
    for r, (p, k) in enumerate(start.pictures):
        x, v = start.noise[r : r + 1], torch.zeros_like(start.noise[:1])
        for m in range(config.steps):
            g = joint_gradient_of(engine, start.prompts[r], x)
            if config.step == "clipped":
                g = (config.lr * g).clamp(-config.clip, config.clip)
            else:
                g = config.lr * g / g.square().mean().sqrt()
            v = config.momentum * v + g
            eps = normal([("doodl", engine.seed, start.seed, p, k, m)], x.shape[1:], x.device)
            x = x + v + config.perturbation * eps
            x = x if norm is None else x * norm[r] / x.norm()
        rows.append(x)
    return torch.cat(rows)


def joint_gradient_of(engine: Engine, prompt: str, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    sign = 1.0 if engine.reward.higher_is_better else -1.0
    return torch.autograd.grad(
        sign * engine.reward.score(sample_images(engine.chain, [prompt], x), [prompt]), x
    )[0]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.0, "perturbation": 0.0},
        {"norm": "expected"},
        {"norm": "free", "perturbation": 0.1},
        {"step": "clipped", "lr": 3.0, "clip": 0.05},
    ],
    ids=str,
)
def test_steps_are_the_formulas(settings: dict[str, Any]) -> None:
    chain = ToyChain(5, 6)
    start, engine = start_of(chain), engine_of(chain)
    config = DoodlConfig.model_validate({"steps": 4, "lr": 0.05} | settings)
    drawn = start.noise.norm(dim=1)
    norm = {"draw": drawn, "expected": torch.full_like(drawn, math.sqrt(6)), "free": None}[config.norm]
    found = Doodl(config, chain.steps).improve(engine, start)
    assert torch.allclose(found.noise, by_hand(engine, start, config, norm), atol=1e-5)
    if norm is not None:
        assert torch.allclose(found.noise.norm(dim=1), norm, rtol=1e-5)
    assert found.rewards.shape == (len(TEXTS), 4)


@pytest.mark.slow
def test_a_reward_to_be_made_small_is_made_small_and_reported_as_it_is() -> None:
    chain = image_chain()
    found = Doodl(DoodlConfig(steps=4, lr=0.03), 4).improve(engine_of(chain, Distance()), start_of(chain))
    assert (found.rewards[:, -1] < found.rewards[:, 0]).all()
    assert torch.allclose(found.rewards[:, 0], joint_gradient(chain, Distance(), start_of(chain).noise)[0])


def test_a_gradient_of_zero_moves_nothing_and_one_that_is_not_finite_is_an_error() -> None:
    class Flat(Bowl):
        """The same for every picture."""

        def score(self, media: Tensor, prompts: Any) -> Tensor:
            return 0 * media.flatten(1).sum(1)

    class Broken(Bowl):
        """Without a finite gradient."""

        def score(self, media: Tensor, prompts: Any) -> Tensor:
            return (media.flatten(1).sum(1) * 0).sqrt()

    chain = ToyChain(3, 4)
    still = Doodl(DoodlConfig(steps=2, perturbation=0), 3).improve(engine_of(chain, Flat()), start_of(chain))
    assert torch.allclose(still.noise, start_of(chain).noise)
    with pytest.raises(
        BenchError, match=r"reward's gradient is not finite on 4 of 4 samples, the first of 'a red apple'"
    ):
        Doodl(DoodlConfig(steps=2), 3).improve(engine_of(chain, Broken()), start_of(chain))
