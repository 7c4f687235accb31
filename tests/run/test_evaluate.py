import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.base.strict import Strict
from bench.engine.chain import State, Transition
from bench.engine.reward import Reward
from bench.run.evaluate import DIVERSITY, Evaluation, evaluate, noise, sample_images, summary
from tests.support.toy import ToyChain

PROMPTS = ["a", "bb", "ccc", "dddd", "eeeee"]


class Pictures(ToyChain):
    """The closed-form chain with latents shown as 2×2 RGB pictures."""

    def __init__(self, **settings: float) -> None:
        super().__init__(dim=12, **settings)  # type: ignore[arg-type]

    def decode(self, x: Tensor, frames: Tensor | None = None) -> Tensor:
        return torch.sigmoid(x).reshape(-1, 3, 2, 2)


class Brightness(Reward):
    differentiable, scale = True, "mean pixel"

    def __init__(self, config: Strict | None = None, device: torch.device | None = None) -> None:
        self.calls: list[list[str]] = []

    def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
        self.calls.append(list(prompts))
        return media.flatten(1).mean(dim=1)


class Embedding(Brightness):
    """Has image features: the picture itself."""

    def image_features(self, media: Tensor) -> Tensor:
        return torch.nn.functional.normalize(media.flatten(1), dim=1)


class Constant(Brightness):
    """Returns the same tensor whatever it sees."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.value


def run(
    chain: ToyChain, batch: int = 4, per_prompt: int = 3, prompts: list[str] = PROMPTS, seed: int = 0
) -> Evaluation:
    rewards = {"brightness": Brightness()}
    return evaluate(chain, rewards, prompts, seed=seed, batch=batch, images_per_prompt=per_prompt)


@pytest.mark.parametrize("multistep", [0.0, 0.5])
def test_the_batch_size_changes_nothing(multistep):
    whole = run(Pictures(multistep=multistep), batch=15)
    for batch in (1, 2, 7, 100):
        part = run(Pictures(multistep=multistep), batch=batch)
        assert [{**r, "score": 0} for r in part.rows] == [{**r, "score": 0} for r in whole.rows]
        assert [r["score"] for r in part.rows] == pytest.approx([r["score"] for r in whole.rows], abs=1e-6)
        assert (part.images.int() - whole.images.int()).abs().max() <= 1


def test_it_repeats_itself_and_another_seed_gives_other_pictures():
    assert run(Pictures()).rows == run(Pictures()).rows
    assert run(Pictures()).rows != run(Pictures(), seed=1).rows


def test_fewer_prompts_or_pictures_give_a_part_of_the_same_rows():
    scores = {(r["prompt"], r["index"], r["reward"]): r["score"] for r in run(Pictures()).rows}
    for row in run(Pictures(), per_prompt=2, prompts=PROMPTS[:2]).rows:
        if row["reward"] != DIVERSITY:
            assert scores[row["prompt"], row["index"], row["reward"]] == pytest.approx(row["score"], abs=1e-6)


def test_global_random_streams_and_gradients_stay_untouched():
    chain = Pictures()
    state = torch.get_rng_state()
    run(chain)
    assert torch.equal(torch.get_rng_state(), state)
    assert chain.weight.grad is None and torch.is_grad_enabled()


@pytest.mark.parametrize("multistep", [0.0, 0.5])
def test_pictures_come_from_the_noiseless_chain_by_hand(multistep):
    chain = Pictures(multistep=multistep)
    x = start = noise(chain, 7, [(0, 0), (3, 2)])
    shift = chain.condition(["a", "dddd"]).shift[:, None]
    memory = torch.zeros_like(x)
    for i in range(chain.steps):
        output = torch.tanh(x @ chain.weight.T + chain.c[i] + shift)
        x = chain.a[i] * x + chain.b[i] * output
        x = x + (multistep * (output - memory) if i else 0)
        memory = output
    assert torch.allclose(sample_images(chain, ["a", "dddd"], start), chain.decode(x), atol=1e-6)


def test_the_first_step_has_no_memory_and_the_later_ones_have():
    seen: list[State] = []

    class Spy(Pictures):
        def transition(self, state, i, cond, eta, *cut, **more) -> Transition:
            seen.append(replace(state))
            assert torch.equal(eta, torch.zeros(1))
            return super().transition(state, i, cond, eta, *cut, **more)

    chain = Spy(multistep=0.5)
    sample_images(chain, ["a"], noise(chain, 0, [(0, 0)]))
    assert [bool(s.valid) for s in seen] == [False, True, True, True, True, True]


def test_rows_name_every_picture_and_reward_once_and_fit_json():
    evaluation = run(Pictures())
    keys = [(r["prompt"], r["index"], r["reward"]) for r in evaluation.rows]
    assert set(keys) == {(p, k, r) for p in PROMPTS for k in range(3) for r in ("brightness", DIVERSITY)}
    assert len(keys) == len(set(keys))
    assert json.loads(json.dumps(evaluation.rows)) == evaluation.rows


def test_every_reward_sees_every_picture_with_its_own_prompt():
    reward = Brightness()
    evaluate(Pictures(), {"x": reward}, PROMPTS, seed=0, batch=4, images_per_prompt=2)
    assert [p for call in reward.calls for p in call] == [p for p in PROMPTS for _ in range(2)]


def test_kept_images_are_the_first_of_the_first_prompts():
    chain = Pictures()
    kept = evaluate(chain, {}, PROMPTS, seed=0, batch=4, images_per_prompt=2, keep=3).images
    media = sample_images(chain, PROMPTS[:3], noise(chain, 0, [(0, 0), (1, 0), (2, 0)]))
    assert kept.dtype == torch.uint8
    assert torch.equal(kept, (255 * media).round().to(torch.uint8))
    assert len(evaluate(chain, {}, PROMPTS, seed=0, batch=4, images_per_prompt=1, keep=0).images) == 0


def test_the_standard_error_is_over_prompts():
    rows = [
        {"prompt": p, "index": k, "reward": "x", "score": s}
        for p, scores in (("a", (1.0, 3.0)), ("b", (5.0, 7.0)))
        for k, s in enumerate(scores)
    ]
    assert summary(rows)["x"] == pytest.approx((4.0, 2.0))  # prompt means 2 and 6
    assert summary(rows[:2])["x"] == pytest.approx((2.0, 1.0))  # one prompt: its pictures
    mean, se = summary(rows[:1])["x"]
    assert mean == 1.0 and math.isnan(se)


@pytest.mark.parametrize(
    ("value", "message"),
    [(torch.tensor([0.0, float("nan")]), "'x' is not finite .* 'bb'"), (torch.zeros(2, 1), "'x' returned")],
)
def test_a_reward_that_is_not_finite_or_misshapen_is_named(value, message):
    with pytest.raises(BenchError, match=message):
        evaluate(Pictures(), {"x": Constant(value)}, PROMPTS[:2], seed=0, batch=2, images_per_prompt=1)


@pytest.mark.parametrize("prompts", [[], ["a", "b", "a"]])
def test_no_prompts_or_a_repeated_one_is_an_error(prompts):
    with pytest.raises(BenchError, match="at least one prompt, and no prompt twice"):
        run(Pictures(), prompts=prompts)


class Writer(Embedding):
    """Writes into what it is given, in one of the ways there are, and returns what was there."""

    def __init__(self, way: str) -> None:
        self.way, self.calls = way, []

    def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
        found = media.flatten(1).mean(dim=1)
        match self.way:
            case "torch":
                media.mul_(255)
            case "view":
                media[:, 0].zero_()
            case "numpy":
                media.detach().numpy()[...] = 7
            case _:
                assert isinstance(prompts, list)
                prompts.reverse()
        return found

    def image_features(self, media: Tensor) -> Tensor:
        features = super().image_features(media).clone()
        media.zero_()
        return features


@pytest.mark.silent
@pytest.mark.parametrize("way", ["torch", "view", "numpy", "prompts"])
def test_a_reward_that_writes_into_its_input_changes_nothing_for_the_next_one_nor_for_diversity(way: str):
    class Lengths(Brightness):
        def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
            return torch.tensor([float(len(prompt)) for prompt in prompts])

    def found(first: Reward) -> Evaluation:
        rewards = {"a": first, "b": Brightness(), "lengths": Lengths()}
        return evaluate(Pictures(), rewards, PROMPTS, seed=0, batch=4, images_per_prompt=2)

    honest, writing = found(Embedding()), found(Writer(way))
    assert writing.rows == honest.rows
    assert torch.equal(writing.images, honest.images)


@pytest.mark.silent
@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 5, 3, 4, 4)])
def test_a_term_of_a_sum_that_writes_into_its_input_changes_no_other_term_and_no_gradient(shape):
    from bench.engine.reward import scores

    class Half(Brightness):
        def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
            return media.mul_(0.5).flatten(1).mean(dim=1)

    media = torch.rand(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    texts = ["a"] * len(media)
    total = scores(Half(), media, texts) + scores(Brightness(), media, texts)
    assert torch.allclose(total, 1.5 * media.flatten(1).mean(dim=1))
    (slope,) = torch.autograd.grad(total.sum(), media)
    assert torch.allclose(slope, torch.full_like(slope, 1.5 / media[0].numel()))
