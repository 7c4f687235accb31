"""The flow-matching model: a small Stable Diffusion 3 transformer on the image model's latents.

Its words are those of two frozen encoders, the reward's and the image model's, as Stable Diffusion 3's are
those of two CLIPs. There is no T5: diffusers appends zeros in its place, 256 or, in older versions, as many
as a text has tokens. Training draws how many, so that pictures do not depend on it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from bench.models.repeated_token import repeat_last
from scripts.embedded.captions import sample_caption
from scripts.embedded.compose import BACKGROUND_NAMES, Library, load_library
from scripts.embedded.loop import Schedule, Training, save_atomically, train
from scripts.embedded.muon import MuonAdam
from scripts.embedded.unet import CACHE, DROP_CAPTION, LatentCache, build_cache, token_ids

WIDTH, HEADS, LAYERS = 128, 4, 5
BATCH = 48
CAPTIONS = 3
"""Captions per cached picture; their words are encoded once."""
ZEROS = (1, 24, 256)
"""How many zeros stand for T5, drawn anew in every step."""
LOGIT_MEAN, LOGIT_STD = 0.4, 1.2
"""Noise levels are sigmoids of normal numbers (Esser et al. 2024, arXiv:2403.03206); a bit noisier than
there: where a picture has so few latents, what it shows is decided at sigma 0.8 to 0.97."""


def build_encoders(image: Path) -> list[CLIPTextModelWithProjection]:
    """The reward's text encoder with its projection, then the image model's, projected by the identity.

    image: the image pipeline's directory; the reward's lies beside it.
    """
    clip: Any = CLIPModel.from_pretrained(image.parent / "clip", dtype=torch.float32, local_files_only=True)
    first = CLIPTextModelWithProjection(clip.config.text_config)
    first.text_model.load_state_dict(clip.text_model.state_dict())
    first.text_projection.load_state_dict(clip.text_projection.state_dict())
    plain = CLIPTextModel.from_pretrained(image / "text_encoder", dtype=torch.float32, local_files_only=True)
    second = CLIPTextModelWithProjection(plain.config)
    second.text_model.load_state_dict(getattr(plain, "text_model", plain).state_dict())
    nn.init.eye_(second.text_projection.weight)
    return [first.eval(), second.eval()]


@torch.no_grad()
def encode_words(encoders: list[CLIPTextModelWithProjection], ids: Tensor) -> tuple[Tensor, Tensor]:
    """States [B, 24, 256] and pooled embeddings [B, 224] of token ids, as StableDiffusion3Pipeline's."""
    outputs = [encoder(input_ids=ids, output_hidden_states=True) for encoder in encoders]
    states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    return states, torch.cat([output.text_embeds for output in outputs], dim=-1)


def build_transformer(
    words: int, pooled: int, width: int = WIDTH, heads: int = HEADS, layers: int = LAYERS, patch: int = 1
) -> SD3Transformer2DModel:
    """A fresh transformer whose layers start as the identity (adaLN-Zero, Peebles & Xie 2023, 2212.09748).

    words, pooled: widths of the encoders' states and of their pooled embeddings.
    """
    network = SD3Transformer2DModel(
        sample_size=8,
        patch_size=patch,
        in_channels=8,
        out_channels=8,
        num_layers=layers,
        attention_head_dim=width // heads,
        num_attention_heads=heads,
        joint_attention_dim=words,
        caption_projection_dim=width,
        pooled_projection_dim=pooled,
        pos_embed_max_size=8 // patch,
    )
    blocks: Any = network.transformer_blocks
    zeroed: list[Any] = [network.proj_out, network.norm_out.linear]
    for block in blocks:
        zeroed += [block.norm1.linear, block.norm1_context.linear]
    for layer in zeroed:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return network


@dataclass(frozen=True)
class FlowData:
    """Latents of unit variance [N, CACHE, 8, 8, 8] and the texts that are true of each.

    which: [N, CACHE, CAPTIONS] indices into states [M, 24, 256] and pooled [M, 224]; text 0 is empty.
    """

    latents: Tensor
    which: Tensor
    states: Tensor
    pooled: Tensor

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Latents [B, 8, 8, 8], states [B, 25, 256] with one of zeros at the end, and pooled [B, 224]."""
        sizes = self.which.shape
        emoji, view, text = (torch.from_numpy(rng.integers(n, size=count)) for n in sizes)
        dropped = torch.from_numpy(rng.random(count) < DROP_CAPTION)
        rows = self.which[emoji, view, text].masked_fill(dropped, 0)
        states = nn.functional.pad(self.states[rows].float(), (0, 0, 0, 1))
        return self.latents[emoji, view].float(), states, self.pooled[rows].float()


def make_data(library: Library, image: Path, seed: int, path: Path) -> FlowData:
    """Encode pictures and captions, or read them from `path`, where they are kept."""
    if not path.exists():
        vae = AutoencoderKL.from_pretrained(image / "vae", torch_dtype=torch.float32).eval()
        cache = build_cache(vae, library, CACHE, np.random.default_rng(seed + 1))
        texts, which = draw_captions(library, cache, np.random.default_rng(seed + 2))
        tokenizer = CLIPTokenizer.from_pretrained(image / "tokenizer", local_files_only=True)
        encoders = build_encoders(image)
        parts = [
            [part.half() for part in encode_words(encoders, token_ids(tokenizer, texts[k : k + 256]))]
            for k in range(0, len(texts), 256)
        ]
        states, pooled = (torch.cat(part) for part in zip(*parts, strict=True))
        save_atomically({"latents": cache.latents, "which": which, "states": states, "pooled": pooled}, path)
    return FlowData(**torch.load(path, weights_only=True))


def draw_captions(library: Library, cache: LatentCache, rng: np.random.Generator) -> tuple[list[str], Tensor]:
    """Different texts, the empty one first, and which are true of each picture, [N, CACHE, CAPTIONS]."""
    places = {"": 0}
    which = torch.empty(len(library), CACHE, CAPTIONS, dtype=torch.long)
    for i, row in enumerate(library.rows):
        for k, (background, placement) in enumerate(
            zip(cache.backgrounds[i], cache.placements[i], strict=True)
        ):
            for c in range(CAPTIONS):
                text = sample_caption(row, BACKGROUND_NAMES[background], placement, rng).text
                which[i, k, c] = places.setdefault(text, len(places))
    return list(places), which


def velocity_loss(
    network: nn.Module, latents: Tensor, states: Tensor, pooled: Tensor, rng: torch.Generator
) -> Tensor:
    """Squared error of the predicted velocity, noise minus latents, at random noise levels.

    latents [B, 8, 8, 8]; states [B, 25, 256]; pooled [B, 224].
    """
    sigma = (LOGIT_MEAN + LOGIT_STD * torch.randn(len(latents), generator=rng)).sigmoid()
    noise = torch.randn(latents.shape, generator=rng)
    s = sigma.view(-1, 1, 1, 1)
    predicted = network(
        hidden_states=(1 - s) * latents + s * noise,
        timestep=1000 * sigma,
        encoder_hidden_states=states,
        pooled_projections=pooled,
    ).sample
    return (predicted - (noise - latents)).pow(2).mean()


def make_optimizer(network: nn.Module) -> MuonAdam:
    """Muon for the inner layers, Adam for embeddings and the last layer."""
    adam_only = ("pos_embed", "time_text_embed", "context_embedder", "norm_out", "proj_out")
    return MuonAdam(
        network.named_parameters(), lr=0.02, adam_lr=2e-3, weight_decay=0.02, adam_only=adam_only, half=False
    )


def train_flow(
    work: Path,
    image: Path,
    steps: int,
    seed: int,
    log: Callable[[str], None] = print,
    milestones: tuple[int, ...] = (),
) -> Path:
    """Train on the decoder and the words of the image pipeline; snapshots go to `work/flow-training`.

    image: the image pipeline's directory; the reward's lies beside it. The learning rate falls over the last
    three eighths of the steps.
    """
    library, _ = load_library(work)
    data = make_data(library, image, seed, work / "flow-data.pt")
    torch.manual_seed(seed)
    network = build_transformer(data.states.shape[-1], data.pooled.shape[-1])
    with torch.no_grad():  # one encoder's states are seven times as large as the other's
        network.context_embedder.weight /= data.states[:, 1:].float().std((0, 1))
    zeros = repeat_last(network, 1)
    log(f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters, {len(data.states)} texts")

    def loss(training: Training) -> Tensor:
        zeros.count = int(training.numpy_rng.choice(ZEROS))
        drawn = data.draw(BATCH, training.numpy_rng)
        return velocity_loss(training.model, *drawn, training.torch_rng)

    start = time.process_time()
    training = Training(network, make_optimizer(network), seed, ema_decay=0.998)
    train(
        training,
        loss,
        Schedule(steps, decay=3 * steps // 8),
        work / "flow-training",
        snapshot_every=100,
        log=log,
        milestones=milestones,
    )
    log(f"cpu-s {time.process_time() - start:.0f}")
    return work / "flow-training"
