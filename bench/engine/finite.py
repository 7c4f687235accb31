"""Latents are checked where they leave the chain: what is not finite would be blamed on the reward, or become
a black picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.base.errors import NotFinite


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
