import pytest
import torch

from bench.base import registry
from bench.base.errors import BenchError
from bench.data.need import needs_of
from rewards.shared.checkpoint import HashTokenizer, torch_dtype
from tests.support.full_size import one_layer, scores_and_steers, shapes
from tests.support.scorers import NAMES, batch, core, load

RANDOM = {
    "hpsv2": "random:ViT-H-14",
    "imagereward": "random:BLIP-ViT-L-16",
    "pickscore": "random:ViT-H-14",
    "aes": "random:ViT-L-14",
    "clipscore": "random:ViT-L-14",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_reaches_every_picture_and_is_that_of_finite_differences(weights, name):
    reward = load(name, weights[name])
    media, prompts = batch(3)
    media = media.clamp(0.1, 0.9).requires_grad_()
    (slope,) = torch.autograd.grad(reward.score(media, prompts).sum(), media)
    assert torch.isfinite(slope).all()
    assert (slope.flatten(1).norm(dim=1) > 0).all()
    step = 1e-2 * slope / slope.norm()
    with torch.no_grad():
        rise = (reward.score(media + step, prompts) - reward.score(media - step, prompts)).sum()
    assert rise.item() == pytest.approx(2e-2 * slope.norm().item(), rel=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_frozen_and_nothing_drops_out(weights, name):
    reward = load(name, weights[name])
    model = reward.clip.model if hasattr(reward, "clip") else reward.model
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(m.training for m in model.modules())


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_depend_on_their_batch(weights, name):
    reward = load(name, weights[name])
    media, prompts = batch(4)
    with torch.no_grad():
        alone = torch.cat([reward.score(media[i : i + 1], prompts[i : i + 1]) for i in range(4)])
        together = reward.score(media, prompts)
        shuffled = reward.score(media.flip(0), prompts[::-1]).flip(0)
    assert together.std() > 1e-4
    assert torch.allclose(together, alone, atol=1e-5, rtol=1e-4)
    assert torch.allclose(together, shuffled, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_32_goes_through_the_network_a_chunk_at_a_time(weights, name):
    reward = load(name, weights[name], chunk=5)
    seen: list[int] = []
    core(name, reward).register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(args[0] if args else kwargs["pixel_values"])),
        with_kwargs=True,
    )
    with torch.no_grad():
        scores = reward.score(*batch(32))
    assert scores.shape == (32,) and torch.isfinite(scores).all()
    assert sum(seen) == 32 and max(seen) == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_with_a_gradient_too_one_chunk_is_in_memory_and_the_gradient_is_the_same(weights, name):
    media, prompts = batch(6)
    weight = torch.linspace(0.5, 2, 6)

    def kept_and_slope(chunk: int) -> tuple[int, torch.Tensor]:
        reward, sizes, images = load(name, weights[name], chunk=chunk), [0], media.clone().requires_grad_()

        def keep(x: torch.Tensor) -> torch.Tensor:
            sizes.append(x.nbytes if x.requires_grad else 0)  # activations, not weights
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            scores = reward.score(images, prompts)
        return sum(sizes), torch.autograd.grad((weight * scores).sum(), images)[0]

    whole, slope = kept_and_slope(6)
    chunked, same = kept_and_slope(2)
    assert chunked < whole / 10
    assert torch.allclose(same, slope, rtol=1e-3, atol=1e-5 * slope.abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_small_weight_does_not_lose_the_gradient_in_float16(weights, name):
    media, prompts = batch(3)

    def slope(weight: float, **settings: object) -> torch.Tensor:
        images = media.clone().requires_grad_()
        score = weight * load(name, weights[name], **settings).score(images, prompts)
        return torch.autograd.grad(score.sum(), images)[0].flatten(1) / weight

    cosine = torch.cosine_similarity(slope(1e-6, dtype="float16"), slope(1.0), dim=1)
    ratio = slope(1e-6, dtype="float16").norm(dim=1) / slope(1.0).norm(dim=1)
    assert (cosine > 0.999).all()
    assert torch.allclose(ratio, torch.ones(3), atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "half"])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_scores_in_float32_close_to_full(weights, name, dtype):
    media, prompts = batch(4)
    with torch.no_grad():
        full = load(name, weights[name]).score(media, prompts)
        half = load(name, weights[name], dtype=dtype).score(media, prompts)
    assert half.dtype == torch.float32
    tolerance = 0.01 if dtype == "float16" else 0.05
    scale = 100.0 if name in ("hpsv2", "pickscore") else 1.0
    assert (half - full).abs().max() < tolerance * scale


def test_half_is_float16_on_cuda_and_bfloat16_on_a_cpu():
    assert torch_dtype("half", torch.device("cuda")) == torch.float16
    assert torch_dtype("half", torch.device("cpu")) == torch.bfloat16


@pytest.mark.parametrize("name", NAMES)
def test_defaults_say_how_much_is_fetched_and_random_weights_need_nothing(name):
    config = registry.load("reward", name).Config
    needs = needs_of(config(), name, "reward")
    assert needs and all(need.gigabytes for need in needs)
    assert needs_of(config(source=RANDOM[name]), name, "reward") == ()
    assert len({need.setting for need in needs}) == len(needs)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_random_architecture_is_refused(name):
    with pytest.raises(ValueError, match=r"random:ViT-nano"):
        registry.load("reward", name).Config(source="random:ViT-nano")


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_needs_a_prompt(weights, name):
    media, prompts = batch(3)
    with pytest.raises(BenchError, match="3 images but 2 prompts"):
        load(name, weights[name]).score(media, prompts[:2])


def test_the_checksum_tokenizer_keeps_to_its_vocabulary_and_length():
    tokenizer = HashTokenizer(101, 102, 0, (1000, 30522), 8)
    found = tokenizer(["a dog", "a dog", "word " * 40, ""])
    ids, mask = found["input_ids"], found["attention_mask"]
    assert ids.shape == mask.shape == (4, 8)
    assert torch.equal(ids[0], ids[1]) and ids[0].tolist()[0] == 101
    assert mask.sum(dim=1).tolist() == [4, 4, 8, 2]
    assert all(row[int(m.sum()) - 1] == 102 for row, m in zip(ids, mask, strict=True))
    words = ids[0, 1:3]
    assert ((words >= 1000) & (words < 30522)).all() and words[0] != words[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_at_full_size_parameters_are_the_published_ones_and_scores_and_gradients_have_their_shapes(name):
    media, prompts = batch(1, side=64)
    parameters, scores, slope = shapes(RANDOM[name], name, media, prompts)
    known = pytest.approx(registry.load("reward", name).parameters, rel=1e-3)  # of its file's size
    assert parameters == (known if name == "imagereward" else registry.load("reward", name).parameters)
    assert (scores, slope) == ((1,), media.shape)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_at_full_width_with_one_layer_random_weights_score_and_steer_without_a_network(
    name, tmp_path, monkeypatch
):
    steered(name, monkeypatch, **one_layer(name, tmp_path, monkeypatch))


@pytest.mark.full_size
@pytest.mark.parametrize("name", NAMES)
def test_at_full_size_random_weights_score_and_steer_without_a_network(name, monkeypatch):
    steered(name, monkeypatch)


def test_describe_shows_every_scorer(capsys):
    from rich.console import Console

    from bench.cli.describe import show

    for name in (*NAMES, "weighted", "python"):
        show(Console(width=120), name)
    shown = capsys.readouterr().out
    assert "HPS_v2.1_compressed.pt" in shown and "x100" in shown


def steered(name, monkeypatch, **settings):
    scores_and_steers(name, RANDOM[name], *batch(1, side=64), monkeypatch, **settings)
