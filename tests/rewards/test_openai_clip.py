"""aes and clipscore against image-reward's AestheticScore and CLIPScore, which run OpenAI's package."""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from rewards.aes import FILE as AES_FILE
from rewards.aes import new_head
from tests.support import openai_clip
from tests.support.scorers import load, media_of, pictures, spread

PROMPT = "a dog face on a blue background"
RESIZED = ((512, 512), (64, 64), (768, 512), (300, 223))
AS_THEY_ARE = ((224, 224), (227, 224), (224, 231))  # odd margins: which pixel is the middle?


class Pair(NamedTuple):
    """A scorer of image-reward and the reward on the same weights."""

    theirs: Any
    ours: Any


@pytest.fixture(scope="module")
def scorers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    directory = tmp_path_factory.mktemp("openai")
    state = openai_clip.original()
    openai_clip.save_for_transformers(state, directory / "clip")
    head = spread(new_head()).state_dict()
    torch.save(head, directory / AES_FILE)
    with openai_clip.loadable(state):
        aes = importlib.import_module("ImageReward.models.AestheticScore").AestheticScore(None)
        clipscore = importlib.import_module("ImageReward.models.CLIPScore").CLIPScore(None)
    aes.mlp.load_state_dict(head)
    ours = load("aes", directory), load("clipscore", directory / "clip")
    return {"aes": Pair(aes.eval(), ours[0]), "clipscore": Pair(clipscore.eval(), ours[1])}


def files(directory: Path, sizes: tuple[tuple[int, int], ...]) -> list[Path]:
    """A smooth picture and one of noise of each size."""
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)) for size in sizes]
    found = []
    for n, image in enumerate((*pictures(*sizes), *noise)):
        found.append(directory / f"{n}.png")
        image.save(found[-1])
    return found


def both(pair: Pair, paths: list[Path], prompt: str = PROMPT) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores by the package, of files, and by the reward."""
    theirs = [pair.theirs.score(prompt, str(path)) for path in paths]
    with torch.no_grad():
        ours = [pair.ours.score(media_of(Image.open(path)), [prompt]).item() for path in paths]
    return torch.tensor(theirs), torch.tensor(ours)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["aes", "clipscore"])
def test_scores_are_the_packages_within_a_few_hundredths_of_their_spread(scorers, tmp_path, name):
    theirs, ours = both(scorers[name], files(tmp_path, RESIZED))
    assert (ours - theirs).abs().max() < 0.05 * theirs.std()


@pytest.mark.slow
def test_aes_crops_the_pixels_that_the_package_crops(scorers, tmp_path):
    theirs, ours = both(scorers["aes"], files(tmp_path, AS_THEY_ARE))
    assert (ours - theirs).abs().max() < 1e-4 * theirs.std()


@pytest.mark.parametrize(
    "prompt", [PROMPT, "", "word " * 120, 'A   Photo of "Mick\'s" café,\n3,000 naïve 日本 🙂 :)']
)
def test_clipscore_reads_prompts_as_the_package_does(scorers, tmp_path, prompt):
    theirs, ours = both(scorers["clipscore"], files(tmp_path, ((224, 224),)), prompt)
    assert torch.allclose(ours, theirs, atol=1e-6)
