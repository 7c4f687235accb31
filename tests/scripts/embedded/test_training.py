"""Optimizer, loop and losses on micro configurations."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import CLIPTokenizer

from bench.data.prompts.emoji import STYLES, concepts, train_prompts
from scripts.embedded import clip_data
from scripts.embedded.clip import contrastive_loss
from scripts.embedded.clip_data import BatchMaker, damage, is_heldout_rendering
from scripts.embedded.compose import Library
from scripts.embedded.data import Picture
from scripts.embedded.export import make_scheduler
from scripts.embedded.loop import Schedule, Training, train
from scripts.embedded.muon import MuonAdam, orthogonalize
from scripts.embedded.tokenizer import learn_bpe, write_tokenizer
from scripts.embedded.unet import ImageModel, make_optimizer, noise_loss, token_ids
from scripts.embedded.vae import build_vae


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    directory = tmp_path_factory.mktemp("tokenizer")
    return write_tokenizer(directory, *learn_bpe(train_prompts()[:500], 700), max_length=24)


def test_tokenizer_round_trip(tokenizer: CLIPTokenizer) -> None:
    text = "a dog face on a blue background"
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert str(tokenizer.decode(ids, skip_special_tokens=True)).strip() == text
    assert len(tokenizer) <= 700


def test_tokenizer_spells_out_words_it_never_saw_and_ignores_case(tokenizer: CLIPTokenizer) -> None:
    ids = tokenizer("Zxqj").input_ids
    assert ids == tokenizer("zxqj").input_ids
    assert str(tokenizer.decode(ids, skip_special_tokens=True)).strip() == "zxqj"
    assert max(ids) < len(tokenizer)


@pytest.mark.parametrize("shape", [(16, 16), (12, 40), (40, 12), (96, 160)])
def test_orthogonalize_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrix))
    assert float(values.min()) > 0.4
    assert float(values.max()) < 1.4


def test_optimizer_gives_convolutions_to_muon_and_the_rest_to_adam() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3), torch.nn.Conv2d(8, 3, 1), torch.nn.Embedding(9, 8))
    optimizer = MuonAdam(model.named_parameters(), lr=0.1, adam_lr=0.1, adam_only=("2.",))
    assert {shape: len(ps) for shape, ps in optimizer.groups.items()} == {(8, 72): 1}
    assert sum(len(group["params"]) for group in optimizer.adam.param_groups) == 4


def test_schedule_warms_up_stays_and_falls() -> None:
    schedule = Schedule(steps=100, warmup=10, decay=50)
    assert schedule.scale(0) == pytest.approx(0.1)
    assert schedule.scale(40) == 1.0
    assert schedule.scale(75) == pytest.approx(0.51)
    assert schedule.scale(99) == pytest.approx(0.03)


class Killed(Exception):
    pass


def _run(directory: Path, tokenizer: CLIPTokenizer, killed_at: int | None) -> Training:
    """Four steps of a micro image model, from whatever snapshot `directory` holds."""
    torch.manual_seed(0)
    model = ImageModel(tokenizer, channels=(8, 16), width=16)
    training = Training(model, make_optimizer(model), seed=3)
    alphas, prompts = make_scheduler().alphas_cumprod, train_prompts()

    def loss(training: Training) -> torch.Tensor:
        if training.step == killed_at:
            raise Killed
        captions = [prompts[i] for i in training.numpy_rng.integers(len(prompts), size=2)]
        latents = torch.randn(2, 8, 8, 8, generator=training.torch_rng)
        return noise_loss(training.model, latents, token_ids(tokenizer, captions), alphas, training.torch_rng)

    def silent(_: str) -> None:
        return None

    train(training, loss, Schedule(4, decay=2), directory, snapshot_every=2, milestones=(3,), log=silent)
    return training


@pytest.mark.slow
def test_resume_after_kill_is_bit_exact(tmp_path: Path, tokenizer: CLIPTokenizer) -> None:
    whole = _run(tmp_path / "whole", tokenizer, killed_at=None)
    with pytest.raises(Killed):
        _run(tmp_path / "killed", tokenizer, killed_at=3)
    resumed = _run(tmp_path / "killed", tokenizer, killed_at=None)
    assert resumed.step == whole.step == 4
    for (name, a), b in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert torch.equal(whole.ema[name], resumed.ema[name]), name
    assert whole.numpy_rng.random() == resumed.numpy_rng.random()
    milestone = torch.load(tmp_path / "killed" / "step-000003.pt", weights_only=True)
    assert milestone.keys() == whole.ema.keys()


def test_contrastive_loss_counts_every_true_caption_and_punishes_ruined_pictures() -> None:
    rng = torch.Generator().manual_seed(0)
    captions = functional.normalize(torch.randn(3, 16, generator=rng), dim=-1)
    captions[1] = captions[0]  # two captions, both true of pictures 0 and 1
    truth = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    scale = torch.tensor(30.0)
    junk = -captions[:1]
    aligned = contrastive_loss(torch.cat([captions, junk]), captions, truth, scale)
    only_diagonal = contrastive_loss(torch.cat([captions, junk]), captions, torch.eye(3).bool(), scale)
    matching_junk = contrastive_loss(torch.cat([captions, captions[:1]]), captions, truth, scale)
    # Best possible: both true captions share the probability.
    assert float(aligned) == pytest.approx(2 / 3 * np.log(2), abs=1e-3)
    assert only_diagonal >= aligned - 1e-6
    assert matching_junk > aligned + 0.1


def test_damage_keeps_shape_and_range_and_repeats_with_its_generator() -> None:
    x = torch.rand(16, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    first = damage(x.clone(), torch.Generator().manual_seed(1))
    second = damage(x.clone(), torch.Generator().manual_seed(1))
    assert first.shape == x.shape
    assert float(first.abs().max()) <= 1
    assert torch.equal(first, second)
    assert not torch.equal(first, x)


@pytest.fixture(scope="module")
def maker() -> Iterator[BatchMaker]:
    """A batch maker over eight objects × three styles with an autoencoder that was never trained."""
    rows = [Picture("", name, (), style) for name in concepts()[:8] for style in STYLES]
    pictures = torch.rand(len(rows), 4, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip_data, "REBUILT_PER_EMOJI", 1)
        patch.setattr(clip_data, "RUINED", 64)
        yield BatchMaker(Library(pictures, rows), build_vae(channels=(8, 8, 8, 8)), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("hard", [False, True])
def test_batches_hold_true_captions_and_repeat_with_their_generators(maker: BatchMaker, hard: bool) -> None:
    batches = [
        maker.draw(16, 2, np.random.default_rng(4), torch.Generator().manual_seed(4), hard) for _ in range(2)
    ]
    assert batches[0].pictures.shape == (18, 3, 64, 64)
    assert bool(batches[0].truth.diagonal().all())
    assert torch.equal(batches[0].pictures, batches[1].pictures)
    assert batches[0].captions == batches[1].captions


def test_each_object_keeps_at_least_two_renderings_for_the_reward() -> None:
    held = {name: [s for s in STYLES if is_heldout_rendering(name, s)] for name in concepts()}
    assert all(len(styles) <= 1 for styles in held.values())
    assert 10 <= sum(map(len, held.values())) <= 30
