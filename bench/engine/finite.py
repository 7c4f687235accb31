"""Latents are checked where they leave the chain, and the reward's gradient where it enters the decoder: what
is not finite would be blamed on what comes after it, or become a black picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.base.errors import BenchError, NotFinite
from bench.engine.float16 import SaysPrecision


def check_latents(latents: Sequence[Tensor], prompts: Sequence[str], where: str = "") -> None:
    """Raise NotFinite that names the first step and prompt, if the last latents are not finite.

    latents: what every step of the chain left, T tensors [B, …]; what is not finite once stays so, and the
    earlier ones are looked at only to name the step. where: begins the message.
    """
    if bool(latents[-1].isfinite().all()):
        return
    finite = torch.stack([x.isfinite().flatten(1).all(1) for x in latents]).cpu()
    i = int((~finite.all(1)).nonzero()[0])
    row = int((~finite[i]).nonzero()[0])
    raise NotFinite(
        f"{where}the latents of {int((~finite[-1]).sum())} of {len(prompts)} samples are not finite: from "
        f"step {i} of {len(latents)} (0 is the noisiest) on, the first of {prompts[row]!r}. Weights of the "
        "model or of its LoRA are not finite (training diverged: a smaller train.lr), or the network "
        "overflows: --set model.dtype=float32, or bfloat16"
    )


def check_slope(rewards: Tensor, slope: Tensor, prompts: Sequence[str], where: str = "") -> None:
    """Raise BenchError if the gradient of a finite reward is not finite.

    rewards: [B]. slope: their gradients with respect to media, [B, …]. prompts: B. where: begins the message.
    """
    if bool(slope.isfinite().all()):
        return
    bad = rewards.isfinite() & ~slope.flatten(1).isfinite().all(1)
    if not bool(bad.any()):
        return  # the rewards are not, which their caller tells
    row = int(bad.nonzero()[0])
    raise BenchError(
        f"{where}the reward's gradient is not finite on {int(bad.sum())} of {len(prompts)} samples, the "
        f"first of {prompts[row]!r}, whose reward is {float(rewards[row]):g}. If the reward runs in half "
        "precision, give it float32: --set REWARD.dtype=float32"
    )


def not_finite(chain: object) -> str:
    """What to do about a gradient that is not finite although latents, rewards and their gradients are."""
    diverged = "training has diverged: a smaller train.lr, or train.clip_norm"
    if not isinstance(chain, SaysPrecision) or chain.dtype == chain.decoder_dtype == torch.float32:
        return diverged
    dtypes = (str(dtype).removeprefix("torch.") for dtype in (chain.dtype, chain.decoder_dtype))
    tried = (
        "" if torch.float16 not in (chain.dtype, chain.decoder_dtype) else ", scaled to fit float16's range"
    )
    return (
        "the network goes back in {} and the decoder in {}{}: --set model.dtype=float32 --set "
        "model.vae_dtype=float32, or training has diverged: a smaller train.lr"
    ).format(*dtypes, tried)
