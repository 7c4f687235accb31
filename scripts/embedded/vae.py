"""The picture autoencoder: AutoencoderKL, 64×64×3 ↔ 8×8×8."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from scripts.embedded.compose import Library, compose, load_library, sample_backgrounds
from scripts.embedded.loop import Schedule, Training, train
from scripts.embedded.muon import MuonAdam
from scripts.embedded.placement import Placement, sample_placement

LATENT_CHANNELS = 8
CHANNELS = (12, 24, 48, 64)
BATCH = 12
CROP_STEPS = 3500
"""Steps at the start that train on random 32×32 crops, four times cheaper than whole pictures."""
CONCEPT_SHARE = 0.6
"""Share of training pictures that show a concept; the others show any other emoji."""
KL_WEIGHT = 1e-4
_UNSEEN_EVERY = 20  # every 20th emoji that is no concept is kept for measuring


def build_vae(channels: tuple[int, ...] = CHANNELS, latent_channels: int = LATENT_CHANNELS) -> AutoencoderKL:
    """A fresh autoencoder, initialised from torch's global generator (seed it first).

    Two norm groups, because one or two channels per group destroy flat colour; residual branches start at
    zero; the posterior starts narrow (log-variance −5).
    """
    settings: dict[str, Any] = {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "block_out_channels": list(channels),
        "layers_per_block": 1,
        "latent_channels": latent_channels,
        "norm_num_groups": 2,
        "sample_size": 64,
    }
    vae = AutoencoderKL(**settings)
    parameters = dict(vae.named_parameters())
    with torch.no_grad():
        parameters["quant_conv.weight"][latent_channels:].mul_(0.1)
        parameters["quant_conv.bias"][latent_channels:].fill_(-5.0)
        for name, module in vae.named_modules():
            if name.endswith(("conv2", "to_out.0")):
                module.weight.zero_()
                module.bias.zero_()
    return vae


def encode(vae: AutoencoderKL, x: Tensor) -> DiagonalGaussianDistribution:
    """Posterior of the unscaled latents of pictures in [−1, 1]."""
    return vae.encode(x, return_dict=False)[0]


def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Pictures, about in [−1, 1], of unscaled latents."""
    return vae.decode(latents, return_dict=False)[0]  # pyright: ignore[reportArgumentType] (any Tensor will do)


def scaling_factor(vae: AutoencoderKL) -> float:
    """Factor that brings latents to unit variance."""
    return float(vae.config["scaling_factor"])


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 + L2 + half the L1 of the image gradients; both [B, 3, H, W] in [−1, 1]."""
    error = output - target
    edges = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    edges = edges + (error[..., :, 1:] - error[..., :, :-1]).abs().mean()
    return error.abs().mean() + error.pow(2).mean() + 0.5 * edges


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB per picture, [B]; inputs [B, 3, H, W] in [−1, 1]."""
    return 10 * torch.log10(4 / (output.clamp(-1, 1) - target).pow(2).mean((1, 2, 3)))


def split_unseen(others: Library) -> tuple[Library, Library]:
    """(for training, for measuring) of the emoji that are no concept; split by code point."""
    codes = sorted({row.code for row in others.rows})
    unseen = set(codes[::_UNSEEN_EVERY])
    keep = [i for i, row in enumerate(others.rows) if row.code not in unseen]
    rest = [i for i, row in enumerate(others.rows) if row.code in unseen]
    return others.subset(keep), others.subset(rest)


def _batch(concepts: Library, others: Library, training: Training) -> Tensor:
    """Training pictures, [BATCH, 3, 64, 64] or, early on, [BATCH, 3, 32, 32]."""
    rng = training.numpy_rng
    pictures = []
    for _ in range(BATCH):
        source = concepts if rng.random() < CONCEPT_SHARE else others
        pictures.append(source.pictures[rng.integers(len(source))])
    placements = [sample_placement(rng) for _ in range(BATCH)]
    x = compose(torch.stack(pictures), sample_backgrounds(BATCH, rng), placements)
    if training.step < CROP_STEPS:
        top, left = rng.integers(0, 5, 2) * 8
        x = x[:, :, top : top + 32, left : left + 32]
    return x


@torch.no_grad()
def vae_psnr(vae: AutoencoderKL, library: Library, count: int = 256) -> float:
    """Mean PSNR in dB of `count` composed pictures through encoder mean and decoder; its own fixed seed."""
    rng = np.random.default_rng(1)
    values = []
    for _ in range(count // 32):
        wanted = rng.integers(len(library), size=32)
        placements = [sample_placement(rng) for _ in range(32)]
        x = compose(library.pictures[wanted], sample_backgrounds(32, rng), placements)
        values.append(psnr(decode(vae, encode(vae, x).mean), x))
    return float(torch.cat(values).mean())


@torch.no_grad()
def _measured_scale(vae: AutoencoderKL, library: Library) -> float:
    """1 / standard deviation of the latents of the concepts in the middle of random backgrounds."""
    rng = np.random.default_rng(2)
    pictures = compose(library.pictures, sample_backgrounds(len(library), rng), [Placement()] * len(library))
    return float(1 / encode(vae, pictures).mean.std())


def train_vae(work: Path, steps: int, seed: int, log: Callable[[str], None] = print) -> Path:
    """Train for `steps` steps, write `work/vae` (float32, diffusers format); returns that directory."""
    concepts, others = load_library(work)
    others, unseen = split_unseen(others)
    torch.manual_seed(seed)
    vae = build_vae()
    optimizer = MuonAdam(vae.named_parameters(), lr=0.03, adam_lr=3e-3, adam_only=("quant_conv",))
    training = Training(vae, optimizer, seed)

    def loss(training: Training) -> Tensor:
        x = _batch(concepts, others, training)
        posterior = encode(vae, x)
        output = decode(vae, posterior.sample(generator=training.torch_rng))
        kl = 0.5 * (posterior.mean.pow(2) + posterior.var - 1 - posterior.logvar).mean()
        return reconstruction_loss(output, x) + KL_WEIGHT * kl

    def report(_: Training) -> str:
        return f"PSNR concepts {vae_psnr(vae, concepts):.2f} unseen emoji {vae_psnr(vae, unseen):.2f} dB"

    start = time.process_time()
    schedule = Schedule(steps, warmup=50, decay=int(0.6 * steps))
    train(training, loss, schedule, work / "vae-training", log=log, report=report)
    training.use_average()
    vae.register_to_config(scaling_factor=_measured_scale(vae, concepts))
    log(
        f"{report(training)} scaling factor {scaling_factor(vae):.4f} cpu-s {time.process_time() - start:.0f}"
    )
    vae.save_pretrained(work / "vae")
    return work / "vae"
