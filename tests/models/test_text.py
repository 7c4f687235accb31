"""Texts per stage of the chain."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.batch import Perturbation
from bench.engine.chain import State
from bench.engine.plan import Kind, Plan, Segment
from bench.models.image import ImageChain
from tests.models.test_image import latents, picture
from tests.support.pipelines import image_chain, small_chain
from tests.support.toys import PROMPTS, Pattern, batch_of, engine_of, gradient

STAGE_AT = (0, 0, 1, 2)


def chains(name: str) -> tuple[ImageChain, ImageChain]:
    """Two equal chains of four steps."""
    one: Any = image_chain if name == "sd" else small_chain
    options = {} if name == "sd" else {"name": name}
    return one(**options), one(**options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_equal_texts_at_all_stages_are_no_schedule_bit_for_bit(name: str) -> None:
    plain, staged = chains(name)
    staged.set_schedule({p: (p, p, p) for p in PROMPTS}, STAGE_AT)
    x = latents(plain)
    assert torch.equal(picture(plain, x), picture(staged, x))


def means(chain: ImageChain) -> list[Tensor]:
    """Every step's mean from the same latents."""
    x, cond = latents(chain), chain.condition(PROMPTS[:2])
    with torch.no_grad():
        return [chain.transition(State(x), i, cond, torch.zeros(2)).mean for i in range(chain.steps)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd", "sdxl"])
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_another_text_changes_the_steps_of_its_stage_alone(name: str, stage: int) -> None:
    plain, staged = chains(name)
    texts = {p: tuple("a horse" if k == stage else p for k in range(3)) for p in PROMPTS}
    staged.set_schedule(texts, STAGE_AT)
    changed = [not torch.equal(a, b) for a, b in zip(means(plain), means(staged), strict=True)]
    assert changed == [at == stage for at in STAGE_AT]


@pytest.mark.slow
def test_selected_rows_keep_their_own_texts() -> None:
    chain = image_chain()
    chain.set_schedule({p: (p, f"{p} b", f"{p} c") for p in PROMPTS}, STAGE_AT)
    x, cond = latents(chain, 3), chain.condition(PROMPTS[:3])
    rows = torch.tensor([2, 0])
    with torch.no_grad():
        for i in range(chain.steps):
            whole = chain.transition(State(x), i, cond, torch.zeros(3)).mean
            part = chain.transition(State(x[rows]), i, cond.select(rows), torch.zeros(2)).mean
            torch.testing.assert_close(part, whole[rows], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_gradients_of_all_kinds_of_steps_run_with_a_schedule_and_depend_on_it() -> None:
    plan = Plan((Segment(Kind.ZO, 0, 1), Segment(Kind.HO, 1, 3), Segment(Kind.FO, 3, 4)), (0, 0, 1, 0))
    found = []
    for texts in (lambda p: (p, p, p), lambda p: (p, "a horse", p)):
        chain = image_chain()
        chain.set_schedule({p: texts(p) for p in PROMPTS}, STAGE_AT)
        engine = engine_of(chain, Pattern(), micro_batch=2)
        trajectory = engine.rollout([plan] * 2, batch_of(2), Perturbation(scale=0.3), reward_grad=True)
        engine.gradient(trajectory, torch.tensor([1.0, -2.0]))
        found.append(gradient(chain))
        assert bool(found[-1].isfinite().all()) and bool((found[-1] != 0).any())
    assert not torch.equal(*found)


@pytest.mark.slow
def test_without_a_schedule_again_the_prompt_is_the_text() -> None:
    plain, staged = chains("sd")
    staged.set_schedule(dict.fromkeys(PROMPTS, ("a", "b", "c")), STAGE_AT)
    staged.schedule = None
    x = latents(plain)
    assert torch.equal(picture(plain, x), picture(staged, x))


@pytest.mark.parametrize(
    ("stages", "stage_at", "message"),
    [
        ({"p": ("a", "b", "c")}, (0, 1), "2 stages are given for 4 steps"),
        ({"p": ("a", "b", "c"), "q": ("a",)}, STAGE_AT, r"prompts have \[1, 3\] texts"),
        ({"p": ("a", "b")}, STAGE_AT, "each prompt has 2 texts"),
        ({"p": ("a", "b")}, (0, 0, -1, 0), "each prompt has 2 texts"),
    ],
)
def test_schedule_that_does_not_fit_says_why(stages: Any, stage_at: Any, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        image_chain().set_schedule(stages, stage_at)


def test_prompt_without_texts_is_an_error_that_names_it() -> None:
    chain = image_chain()
    chain.set_schedule({"p": ("a", "b", "c")}, STAGE_AT)
    with pytest.raises(BenchError, match="no texts per stage for the prompt 'q'"):
        chain.condition(["q"])
