"""The image model: a text encoder and a latent UNet, trained together to predict the noise."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from scripts.embedded.captions import sample_background, sample_caption
from scripts.embedded.compose import BACKGROUND_NAMES, Library, compose, load_library
from scripts.embedded.export import make_scheduler
from scripts.embedded.loop import Schedule, Training, train
from scripts.embedded.muon import MuonAdam
from scripts.embedded.placement import Placement, sample_placement
from scripts.embedded.tokenizer import MAX_LENGTH, special_ids
from scripts.embedded.vae import encode, scaling_factor

TEXT_WIDTH = 128
CHANNELS = (64, 96)
BATCH = 40
DROP_CAPTION = 0.1
"""Share of empty captions, for classifier-free guidance."""
CACHE = 64
"""Composed pictures per emoji; their latents are computed once."""
_MAX_SNR = 5.0  # min-SNR-γ weighting (Hang et al. 2023)


class ImageModel(nn.Module):
    """Text encoder and UNet as one module, so that one optimizer and one snapshot hold both."""

    def __init__(
        self, tokenizer: CLIPTokenizer, channels: tuple[int, ...] = CHANNELS, width: int = TEXT_WIDTH
    ):
        super().__init__()
        self.text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=width,
                intermediate_size=2 * width,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=MAX_LENGTH,
                projection_dim=width,
                **special_ids(tokenizer),
            )
        )
        settings: dict[str, Any] = {
            "sample_size": 8,
            "in_channels": 8,
            "out_channels": 8,
            "down_block_types": ["CrossAttnDownBlock2D"] * len(channels),
            "up_block_types": ["CrossAttnUpBlock2D"] * len(channels),
            "block_out_channels": list(channels),
            "layers_per_block": 1,
            "cross_attention_dim": width,
            "attention_head_dim": 4,
            "norm_num_groups": 8,
        }
        self.unet = UNet2DConditionModel(**settings)

    def forward(self, noisy: Tensor, timestep: Tensor, ids: Tensor) -> Tensor:
        """Predicted noise; noisy [B, 8, 8, 8], timestep [B], ids [B, 24]."""
        return self.unet(noisy, timestep, self.text_encoder(input_ids=ids).last_hidden_state).sample


@dataclass(frozen=True)
class LatentCache:
    """Latents of composed pictures, float16 [N, CACHE, 8, 8, 8], of unit variance; what they show."""

    latents: Tensor
    backgrounds: list[list[int]]
    placements: list[list[Placement]]


@torch.no_grad()
def build_cache(vae: AutoencoderKL, library: Library, count: int, rng: np.random.Generator) -> LatentCache:
    """Compose and encode `count` pictures per emoji, none of them a held-out combination."""
    weights = np.array([2.0 if name == "white" else 1.0 for name in BACKGROUND_NAMES])
    latents, backgrounds, placements = [], [], []
    for i, row in enumerate(library.rows):
        placements.append([sample_placement(rng) for _ in range(count)])
        backgrounds.append([sample_background(row, weights, rng) for _ in range(count)])
        pictures = library.pictures[i].expand(count, -1, -1, -1)
        x = compose(pictures, backgrounds[-1], placements[-1])
        latents.append((encode(vae, x).mean * scaling_factor(vae)).half())
    return LatentCache(torch.stack(latents), backgrounds, placements)


def token_ids(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """[B, MAX_LENGTH] token ids, padded and cut as StableDiffusionPipeline does."""
    batch = tokenizer(
        captions, padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt"
    )
    return batch.input_ids


def noise_loss(
    model: nn.Module, latents: Tensor, ids: Tensor, alphas: Tensor, rng: torch.Generator
) -> Tensor:
    """Min-SNR weighted squared error of the predicted noise at random timesteps.

    latents [B, 8, 8, 8]; ids [B, 24]; alphas: cumulative products, [1000].
    """
    timestep = torch.randint(0, len(alphas), (len(latents),), generator=rng)
    noise = torch.randn(latents.shape, generator=rng)
    alpha = alphas[timestep].view(-1, 1, 1, 1)
    predicted = model(alpha.sqrt() * latents + (1 - alpha).sqrt() * noise, timestep, ids)
    snr = alpha / (1 - alpha)
    weight = snr.clamp(max=_MAX_SNR) / snr
    return (weight * (predicted - noise).pow(2)).mean()


def make_optimizer(model: nn.Module) -> MuonAdam:
    """Muon for the inner layers, Adam for embeddings, first and last layers."""
    adam_only = ("conv_in", "conv_out", "embedding")
    return MuonAdam(model.named_parameters(), lr=0.02, adam_lr=2e-3, weight_decay=0.02, adam_only=adam_only)


def train_unet(
    work: Path,
    steps: int,
    seed: int,
    log: Callable[[str], None] = print,
    milestones: tuple[int, ...] = (),
    decay: int = 0,
) -> Path:
    """Train the image model on `work/vae` and `work/tokenizer`; snapshots go to `work/unet-training`."""
    library, _ = load_library(work)
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer", local_files_only=True)
    vae = AutoencoderKL.from_pretrained(work / "vae").eval()
    cache = build_cache(vae, library, CACHE, np.random.default_rng(seed + 1))
    torch.manual_seed(seed)
    model = ImageModel(tokenizer)
    log(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {len(library)} emoji")
    alphas = make_scheduler().alphas_cumprod

    def loss(training: Training) -> Tensor:
        rng = training.numpy_rng
        emoji, view = rng.integers(len(library), size=BATCH), rng.integers(CACHE, size=BATCH)
        captions = [
            ""
            if rng.random() < DROP_CAPTION
            else sample_caption(
                library.rows[i], BACKGROUND_NAMES[cache.backgrounds[i][k]], cache.placements[i][k], rng
            ).text
            for i, k in zip(emoji, view, strict=True)
        ]
        latents = cache.latents[emoji, view].float()
        return noise_loss(training.model, latents, token_ids(tokenizer, captions), alphas, training.torch_rng)

    start = time.process_time()
    training = Training(model, make_optimizer(model), seed, ema_decay=0.9995)
    schedule = Schedule(steps, decay=decay)
    train(training, loss, schedule, work / "unet-training", log=log, milestones=milestones)
    log(f"cpu-s {time.process_time() - start:.0f}")
    return work / "unet-training"
