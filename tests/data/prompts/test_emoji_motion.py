import numpy as np
import pytest

from bench.data.prompts.emoji import is_heldout
from bench.data.prompts.emoji_motion import (
    MOTIONS,
    clip_combinations,
    clip_prompt,
    heldout_clip_prompts,
    is_heldout_clip,
    motion_of,
    train_clip_prompts,
)
from scripts.embedded.placement import sample_clip


def test_prompts_name_their_motion_and_read_as_english() -> None:
    assert clip_prompt("owl", "orange", "growing") == "an owl growing on an orange background"
    assert clip_prompt("grapes", "blue", "moving left") == "grapes moving left on a blue background"
    for concept, background, motion in clip_combinations(heldout=True)[:200]:
        assert motion_of(clip_prompt(concept, background, motion)) == motion
    assert motion_of("a fox on a blue background") is None


def test_no_prompt_is_in_both_halves() -> None:
    train, held_out = train_clip_prompts(), heldout_clip_prompts()
    assert not set(train) & set(held_out)
    assert len(train) + len(held_out) == len(set(train + held_out)) == 80 * 10 * 8
    assert 0.1 < len(held_out) / 6400 < 0.2


def test_what_is_held_out_in_pictures_is_held_out_in_clips() -> None:
    pairs = [(c, b) for c, b, _ in clip_combinations(heldout=False)]
    assert not any(is_heldout(concept, background) for concept, background in pairs)
    assert any(is_heldout_clip(c, b, "growing") and not is_heldout(c, b) for c, b in pairs)


@pytest.mark.parametrize("words", MOTIONS)
def test_clips_move_as_their_words_say(words: str) -> None:
    rng, motion = np.random.default_rng(0), MOTIONS[words]
    for _ in range(20):
        first, *_, last = sample_clip(words, rng)
        found = (
            last.x - first.x,
            last.y - first.y,
            np.log(last.scale / first.scale),
            last.angle - first.angle,
        )
        asked = (motion.x, motion.y, motion.growth, motion.turn)
        pace = np.dot(found, asked) / np.dot(asked, asked)
        assert 0.8 < pace < 1.2
        assert np.allclose(found, pace * np.array(asked), atol=1e-6)
