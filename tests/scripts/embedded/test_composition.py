"""Captions, placements and composed pictures say the same."""

import numpy as np
import pytest
import torch

from bench.data.prompts.emoji import STYLES, concepts, is_heldout
from scripts.embedded.captions import caption, heldout_combinations, sample_background, sample_caption
from scripts.embedded.compose import BACKGROUND_NAMES, Library, compose
from scripts.embedded.data import Picture
from scripts.embedded.placement import Placement, place, placement_words, sample_placement


@pytest.fixture
def square() -> torch.Tensor:
    """A red square with a green upper edge, 32×32 amid 64×64; premultiplied RGBA [1, 4, 64, 64]."""
    picture = torch.zeros(1, 4, 64, 64)
    picture[:, 0, 16:48, 16:48] = 1
    picture[:, 3, 16:48, 16:48] = 1
    picture[:, 0, 16:24, 16:48] = 0
    picture[:, 1, 16:24, 16:48] = 1
    return picture


def centre(mask: torch.Tensor) -> tuple[float, float]:
    """Mean (x, y) of a boolean picture in [−1, 1], y down."""
    ys, xs = torch.nonzero(mask, as_tuple=True)
    return float(xs.float().mean()) / 31.5 - 1, float(ys.float().mean()) / 31.5 - 1


def object_and_green(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks of the whole object and of its green edge on a black background."""
    picture = x[0]
    return (picture[0] > 0.3) | (picture[1] > 0.3), (picture[1] > 0.3) & (picture[0] < 0)


@pytest.mark.parametrize(
    ("words", "sign_x", "sign_y"),
    [("on the left", -1, 0), ("at the top right", 1, -1), ("flying up", 0, -1), ("falling", 0, 1)],
)
def test_object_lies_where_the_words_say(square: torch.Tensor, words: str, sign_x: int, sign_y: int) -> None:
    x = compose(square, [BACKGROUND_NAMES.index("black")], [place(words)])
    for value, sign in zip(centre(object_and_green(x)[0]), (sign_x, sign_y), strict=True):
        assert value * sign > 0.2 if sign else abs(value) < 0.05


def test_tilted_left_turns_counter_clockwise_and_upside_down_turns_over(square: torch.Tensor) -> None:
    black = [BACKGROUND_NAMES.index("black")]
    left = centre(object_and_green(compose(square, black, [place("tilted left")]))[1])
    over = centre(object_and_green(compose(square, black, [place("upside down")]))[1])
    assert left[0] < -0.1
    assert left[1] < -0.1
    assert over[1] > 0.2


def test_small_is_smaller_than_large(square: torch.Tensor) -> None:
    area = {
        words: int(object_and_green(compose(square, [1], [place(words)]))[0].sum())
        for words in ("small", "large")
    }
    assert area["large"] / area["small"] == pytest.approx((1.3 / 0.5) ** 2, rel=0.15)


def test_background_has_its_colour_without_fringes(square: torch.Tensor) -> None:
    x = compose(square * 0, [BACKGROUND_NAMES.index("blue")], [Placement()])
    expected = torch.tensor([82, 138, 226]) / 255 * 2 - 1
    assert torch.allclose(x, expected.view(1, 3, 1, 1).expand_as(x), atol=1e-6)


def test_caption_wording() -> None:
    assert caption("dog face", "blue", "twemoji") == "a dog face on a blue background, twemoji style"
    assert caption("owl", "orange", None, "small") == "a small owl on an orange background"
    assert caption("grapes", None, None, "", "falling") == "grapes falling"


def test_sampled_captions_are_true_of_their_picture_and_false_of_another_object() -> None:
    rng = np.random.default_rng(0)
    for k in range(300):
        picture = Picture("", concepts()[k % 80], (), STYLES[k % 3])
        placement = sample_placement(rng)
        claim = sample_caption(picture, "blue", placement, rng)
        assert claim.holds(picture, "blue", placement)
        assert not claim.holds(Picture("", concepts()[(k + 1) % 80], (), picture.style), "blue", placement)
        if claim.background is not None:
            assert not claim.holds(picture, "red", placement)


def test_captions_use_every_placement_word() -> None:
    rng = np.random.default_rng(0)
    picture = Picture("", "fox", (), "noto")
    texts = [sample_caption(picture, "blue", sample_placement(rng), rng).text for _ in range(2000)]
    assert all(any(words in text for text in texts) for words in placement_words())
    moved = sum(any(words in text for words in placement_words()) for text in texts)
    assert 0.3 < moved / len(texts) < 0.5


def test_heldout_backgrounds_are_never_drawn_for_training() -> None:
    rng = np.random.default_rng(0)
    rows = [Picture("", name, (), style) for name in concepts() for style in STYLES]
    library = Library(torch.zeros(len(rows), 4, 1, 1), rows)
    held = set(heldout_combinations(library))
    drawn = {(i, sample_background(row, np.ones(10), rng)) for i, row in enumerate(rows) for _ in range(60)}
    assert len(held) > 100
    assert not held & drawn
    assert all(is_heldout(rows[i].name, BACKGROUND_NAMES[b], rows[i].style) for i, b in held)
