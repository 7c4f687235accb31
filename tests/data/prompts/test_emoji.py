"""The prompt lists: pure Python, disjoint, stable."""

import subprocess
import sys
from collections import Counter

import pytest

from bench.data.prompts.emoji import (
    BACKGROUNDS,
    combinations,
    concepts,
    heldout_prompts,
    is_heldout,
    train_prompts,
    with_article,
)


def test_importing_paths_and_prompts_imports_no_torch() -> None:
    code = (
        "import sys, bench.models.embedded, bench.data.prompts.emoji;"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_train_and_heldout_prompts_are_disjoint_and_cover_everything() -> None:
    train, heldout = train_prompts(), heldout_prompts()
    assert not set(train) & set(heldout)
    assert len(set(train)) + len(set(heldout)) == len(concepts()) * len(BACKGROUNDS) * 4
    assert 0.05 < len(heldout) / (len(train) + len(heldout)) < 0.15


def test_a_prompt_without_style_is_a_training_prompt_only_if_the_pair_may_be_trained_on() -> None:
    for name, background, style in combinations(heldout=True):
        if style is None:
            assert all(is_heldout(name, background, s) for s in ("noto", "twemoji", "fluent"))


def test_every_concept_and_background_occurs_in_training() -> None:
    seen = Counter(word for name, background, _ in combinations(heldout=False) for word in (name, background))
    assert set(seen) == {*concepts(), *BACKGROUNDS}


def test_prompt_order_is_stable() -> None:
    assert heldout_prompts()[:2] == [
        "an owl on a blue background, twemoji style",
        "an evergreen tree on a black background, fluent style",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [("owl", "an owl"), ("unicorn", "a unicorn"), ("grapes", "grapes"), ("umbrella", "an umbrella")],
)
def test_article(name: str, text: str) -> None:
    assert with_article(name) == text
