"""The LoRA: perturbed sample by sample, saved and loaded."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.chain import State
from bench.models.config import LoraConfig
from bench.models.latent_chain import LatentChain
from bench.models.lora import call_directly, perturbed
from tests.models.test_image import diffusers_picture, latents, picture
from tests.support.pipelines import image_chain, pipeline_dir
from tests.support.toys import PROMPTS, fill


def values(chain: LatentChain) -> list[Tensor]:
    """Copies of the parameters."""
    return [p.detach().clone() for p in chain.parameters()]


def directions(chain: LatentChain, count: int) -> Tensor:
    """Perturbations [count, d] that change the output visibly."""
    d = sum(p.numel() for p in chain.parameters())
    return 0.3 * torch.randn(count, d, generator=torch.Generator().manual_seed(9))


def step(chain: LatentChain, x: Tensor, rows: list[int]) -> Tensor:
    """The mean of step 1 for some samples."""
    pick = torch.tensor(rows)
    cond = chain.condition(PROMPTS).select(pick)
    return chain.transition(State(x[pick]), 1, cond, torch.zeros(len(rows))).mean


def change(chain: LatentChain, delta: Tensor) -> None:
    """Really add delta [d] to the parameters."""
    with torch.no_grad():
        for p, part in zip(
            chain.parameters(), delta.split([p.numel() for p in chain.parameters()]), strict=True
        ):
            p += part.reshape(p.shape)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [2.0, 5.0])
def test_layers_that_are_called_directly_give_what_pefts_and_diffusers_own_calls_give(alpha: float) -> None:
    """To the last bit, in pictures and in gradients; and with the adapter off."""
    chain = image_chain(guidance=4.0, steps=3, lora=LoraConfig(rank=2, alpha=alpha))
    fill(chain, 0.1)
    x, rows = latents(chain, 2), [0, 1]

    def found() -> list[Tensor]:
        mean = step(chain, x, rows)
        return [mean, *torch.autograd.grad(mean.square().sum(), chain.parameters())]

    direct = found()
    chain.network.disable_adapters()
    without = step(chain, x, rows)
    assert not torch.equal(without, direct[0])
    chain.network.enable_adapters()
    changed = [module for module in chain.network.modules() if "forward" in vars(module)]
    assert len(changed) > 8
    for module in changed:
        del module.forward
    assert all(torch.equal(a, b) for a, b in zip(direct, found(), strict=True))
    chain.network.disable_adapters()
    assert torch.equal(without, step(chain, x, rows))


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [3, 1]])
def test_perturbed_batch_equals_a_loop_over_changed_parameters(guidance: float, rows: list[int]) -> None:
    chain = image_chain(guidance=guidance, steps=3, lora=LoraConfig(rank=2, alpha=5))
    x, delta = latents(chain, 4), directions(chain, 4)
    before = values(chain)
    with torch.no_grad():
        plain = step(chain, x, rows)
        with chain.perturbed(delta[rows]):
            together = step(chain, x, rows)
        assert all(torch.equal(p, b) for p, b in zip(chain.parameters(), before, strict=True))
        assert torch.equal(step(chain, x, rows), plain)
        for n, row in enumerate(rows):
            change(chain, delta[row])
            torch.testing.assert_close(together[[n]], step(chain, x, [row]), rtol=1e-4, atol=1e-4)
            for p, b in zip(chain.parameters(), before, strict=True):
                p.copy_(b)
    assert float((together - plain).abs().max()) > 0.01


def test_gradient_of_a_perturbed_batch_is_taken_at_the_changed_parameters() -> None:
    chain = image_chain(steps=3)
    x, delta = latents(chain, 4), directions(chain, 4)
    with chain.perturbed(delta[[2]]):
        found = torch.autograd.grad(step(chain, x, [2]).square().sum(), chain.parameters())
    change(chain, delta[2])
    expected = torch.autograd.grad(step(chain, x, [2]).square().sum(), chain.parameters())
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-3, atol=1e-3)


def test_copies_for_guidance_are_made_layer_by_layer_and_change_no_bit() -> None:
    chain = image_chain(guidance=4.0, steps=3)
    x, delta = latents(chain, 4), directions(chain, 4)
    layers = call_directly(chain.network)
    with torch.no_grad():
        with perturbed(layers, delta.repeat(2, 1)):
            repeated = step(chain, x, [0, 1, 2, 3])
        with perturbed(layers, delta, copies=2):
            assert {part.untyped_storage().data_ptr() for layer in layers for part in layer.delta or ()} == {
                delta.untyped_storage().data_ptr()
            }
            together = step(chain, x, [0, 1, 2, 3])
    assert torch.equal(repeated, together)


def test_row_without_perturbation_is_not_perturbed() -> None:
    chain = image_chain(steps=3)
    x, delta = latents(chain, 4), directions(chain, 4)
    delta[1] = 0
    with torch.no_grad():
        plain = step(chain, x, [0, 1, 2, 3])
        with chain.perturbed(delta):
            together = step(chain, x, [0, 1, 2, 3])
    torch.testing.assert_close(together[1], plain[1], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(together[0], plain[0], atol=1e-3)


@pytest.mark.slow
def test_parameters_and_layers_are_as_before_when_the_forward_raises() -> None:
    chain = image_chain(steps=3)
    x, before = latents(chain, 4), values(chain)
    with torch.no_grad():
        plain = step(chain, x, [0, 1])
        with pytest.raises(RuntimeError, match="out of luck"), chain.perturbed(directions(chain, 2)):
            raise RuntimeError("out of luck")
        with (
            pytest.raises(ValueError, match="4 rows are not a multiple of 6 samples"),
            chain.perturbed(directions(chain, 3)),
        ):
            step(chain, x, [0, 1])
        assert torch.equal(step(chain, x, [0, 1]), plain)
    assert all(torch.equal(p, b) for p, b in zip(chain.parameters(), before, strict=True))


def test_perturbation_of_the_wrong_size_is_refused_and_leaves_nothing_behind() -> None:
    chain = image_chain(steps=3)
    x = latents(chain, 4)
    with torch.no_grad():
        plain = step(chain, x, [0, 1])
        wider = torch.ones(2, directions(chain, 1).shape[1] + 1)
        with pytest.raises(RuntimeError, match="split"), chain.perturbed(wider):
            pass
        assert torch.equal(step(chain, x, [0, 1]), plain)


def test_layers_that_are_not_linear_cannot_be_perturbed_and_the_error_says_so() -> None:
    chain = image_chain(steps=2, lora=LoraConfig(rank=2, targets=("to_q", "conv1")))
    with (
        pytest.raises(BenchError, match=r"Conv2d.*restrict model.lora.targets"),
        chain.perturbed(directions(chain, 1)),
    ):
        pass


@pytest.mark.slow
def test_perturbation_is_flat_in_the_order_of_the_parameters() -> None:
    """Moving one parameter alone moves the output as perturbing its columns alone does."""
    chain = image_chain(steps=3)
    x, sizes = latents(chain, 4), [p.numel() for p in chain.parameters()]
    for n in (0, 5, len(sizes) - 1):
        delta = torch.zeros(1, sum(sizes))
        delta[:, sum(sizes[:n]) : sum(sizes[: n + 1])] = 0.5
        before = values(chain)
        with torch.no_grad():
            with chain.perturbed(delta):
                found = step(chain, x, [0])
            chain.parameters()[n].add_(0.5)
            torch.testing.assert_close(found, step(chain, x, [0]), rtol=1e-4, atol=1e-4)
            chain.parameters()[n].copy_(before[n])


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [None, 6.0])
def test_saved_lora_gives_the_same_picture_in_plain_diffusers(alpha: float | None, tmp_path: Path) -> None:
    chain = image_chain(steps=3, lora=LoraConfig(rank=2, alpha=alpha))
    chain.save_lora(tmp_path / "lora")
    pipeline = StableDiffusionPipeline.from_pretrained(pipeline_dir(), local_files_only=True)
    x = latents(chain)
    base = diffusers_picture(pipeline, chain, x)
    pipeline.load_lora_weights(str(tmp_path / "lora"))
    tuned = diffusers_picture(pipeline, chain, x)
    torch.testing.assert_close(picture(chain, x), tuned, rtol=0, atol=2e-4)
    assert float((tuned - base).abs().max()) > 0.01


def test_a_saved_lora_is_the_same_bytes_each_time_and_readable_as_other_files_are(tmp_path: Path) -> None:
    """The library's own order of metadata changes from file to file, that of a set between processes."""
    chain, found = image_chain(steps=2, lora=LoraConfig(rank=2, alpha=6)), set[bytes]()
    for n in range(8):
        chain.save_lora(tmp_path / str(n))
        found.add((tmp_path / str(n) / "pytorch_lora_weights.safetensors").read_bytes())
    assert len(found) == 1
    file = tmp_path / "0" / "pytorch_lora_weights.safetensors"
    with safe_open(file, framework="pt") as opened:
        about = json.loads(opened.metadata()["lora_adapter_metadata"])
    assert list(about) == sorted(about)
    assert about["unet.target_modules"] == sorted(chain.config.lora.targets)
    assert about["unet.lora_alpha"] == 6
    (tmp_path / "plain").touch()
    assert file.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.slow
@pytest.mark.parametrize("rank", [2, 5])
def test_loaded_lora_is_bit_for_bit_the_saved_one_whatever_the_chains_rank(rank: int, tmp_path: Path) -> None:
    saved = image_chain(steps=3, lora=LoraConfig(rank=2, alpha=6))
    saved.save_lora(tmp_path / "lora")
    chain = image_chain(steps=3, lora=LoraConfig(rank=rank))
    fill(chain, 0.1, seed=1)
    chain.load_lora(tmp_path / "lora")
    assert all(torch.equal(a, b) for a, b in zip(chain.parameters(), saved.parameters(), strict=True))
    assert all(p.requires_grad and p.dtype == torch.float32 for p in chain.parameters())
    assert {id(p) for p in chain.network.parameters() if p.requires_grad} == {
        id(p) for p in chain.parameters()
    }
    x = latents(chain)
    assert torch.equal(picture(chain, x), picture(saved, x))


def test_directory_without_a_lora_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(
        BenchError, match="neither a cell with a trained LoRA nor a directory or file with one"
    ):
        image_chain(steps=2).load_lora(tmp_path)


@pytest.mark.slow
def test_fresh_lora_changes_nothing_but_has_a_gradient() -> None:
    chain = image_chain(steps=2)
    bare = image_chain(steps=2, spread=0.0)
    with torch.no_grad():
        for p in chain.parameters()[1::2]:
            p.zero_()  # B, as at initialisation
    x = latents(chain)
    assert torch.equal(picture(chain, x), picture(bare, x))
    out = step(chain, latents(chain, 4), [0, 1])
    grads = torch.autograd.grad(out.square().sum(), chain.parameters())
    assert all(bool((g == 0).all()) for g in grads[::2])
    assert all(bool((g != 0).any()) for g in grads[1::2])


def test_the_reference_is_the_model_without_its_lora_and_has_a_gradient_for_x_alone() -> None:
    chain = image_chain(steps=2)
    trained = [p.detach().clone() for p in chain.parameters()]
    x = latents(chain).requires_grad_()
    with chain.reference():
        bare = step(chain, x, [0])
        assert torch.autograd.grad(bare.sum(), x)[0].abs().sum() > 0
        assert not any(p.requires_grad for p in chain.parameters())
    assert all(p.requires_grad for p in chain.parameters())
    with_lora = step(chain, x, [0])
    with torch.no_grad():
        for p in chain.parameters()[1::2]:
            p.zero_()  # B, as at initialisation
        assert torch.equal(step(chain, x, [0]), bare) and not torch.equal(with_lora, bare)
        for p, before in zip(chain.parameters(), trained, strict=True):
            p.copy_(before)
        assert torch.equal(step(chain, x, [0]), with_lora)
