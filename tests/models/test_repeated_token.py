"""One word that counts for many gives what the many give."""

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor

from bench.models.repeated_token import repeat_last


def transformer(dual: tuple[int, ...], qk_norm: str | None) -> SD3Transformer2DModel:
    torch.manual_seed(0)
    return SD3Transformer2DModel(
        sample_size=4,
        patch_size=1,
        in_channels=3,
        out_channels=3,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        caption_projection_dim=16,
        pooled_projection_dim=10,
        pos_embed_max_size=4,
        dual_attention_layers=dual,
        qk_norm=qk_norm,
    )


def run(network: SD3Transformer2DModel, words: Tensor, zeros: int) -> tuple[Tensor, Tensor]:
    """The output, and its gradient with respect to the words before the zeros."""
    rng = torch.Generator().manual_seed(1)
    x, pooled = torch.randn(2, 3, 4, 4, generator=rng), torch.randn(2, 10, generator=rng)
    words = words.clone().requires_grad_()
    states = torch.nn.functional.pad(words, (0, 0, 0, zeros))
    out = network(x, states, pooled, torch.tensor([900.0, 20.0])).sample
    (gradient,) = torch.autograd.grad(out.pow(2).sum(), words)
    return out.detach(), gradient


@pytest.mark.parametrize(("dual", "qk_norm"), [((), None), ((0, 1), "rms_norm")])
def test_one_zero_that_counts_for_many_is_many_zeros(dual: tuple[int, ...], qk_norm: str | None) -> None:
    words = 3 * torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(2))
    network = transformer(dual, qk_norm)
    many, gradient = run(network, words, 40)
    one, _ = run(network, words, 1)
    repeat_last(network, 40)
    found, found_gradient = run(network, words, 1)
    torch.testing.assert_close(found, many, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found_gradient, gradient, rtol=1e-3, atol=1e-5)
    assert float((one - many).abs().max()) > 1e-3  # how many there are does matter
