"""The video model: the image model's UNet with layers over time, trained on clips to predict the noise.

The network is diffusers' `UNet3DConditionModel`, as in ModelScope and VideoCrafter2. Its layers over space
start as the image model's, its layers over time as the identity, so that the first sample is a row of good
pictures without a motion. Autoencoder, text encoder and tokenizer are the image model's, unchanged.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet3DConditionModel
from diffusers.models.resnet import TemporalConvLayer
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from bench.data.prompts.emoji_motion import FRAMES, MOTIONS, clip_combinations, clip_prompt, is_heldout_clip
from scripts.embedded.captions import caption
from scripts.embedded.compose import BACKGROUND_NAMES, Library, compose, load_library
from scripts.embedded.export import make_video_scheduler
from scripts.embedded.loop import Schedule, Training, train
from scripts.embedded.muon import MuonAdam
from scripts.embedded.placement import sample_clip
from scripts.embedded.unet import DROP_CAPTION, token_ids
from scripts.embedded.vae import encode, scaling_factor

BATCH = 8
"""Clips."""
HEAD = 16
"""Width of an attention head: what the image UNet has at its finer level. A video UNet knows one width only,
so at the coarser level 4 heads of 24 become 6 of 16."""
CACHE = 32
"""Composed clips per emoji; their latents are computed once."""
ORDER = 6.0
"""Size of the frames' places in the features of an untrained video UNet; see `tell_order`."""
SAY_STYLE = 0.3
"""Share of captions that name the style."""
_THREE = {"CrossAttnDownBlock2D": "CrossAttnDownBlock3D", "CrossAttnUpBlock2D": "CrossAttnUpBlock3D"}
_TAKEN = (
    "sample_size",
    "in_channels",
    "out_channels",
    "block_out_channels",
    "layers_per_block",
    "cross_attention_dim",
    "norm_num_groups",
)


def grow_unet(image: UNet2DConditionModel) -> UNet3DConditionModel:
    """A video UNet that gives every frame about what the image UNet gives for it (`HEAD`).

    Layers over time have random numbers from torch's global generator, but for their last ones, which are
    zero.
    """
    settings: dict[str, Any] = {name: image.config[name] for name in _TAKEN} | {"attention_head_dim": HEAD}
    for name in ("down_block_types", "up_block_types"):
        settings[name] = [_THREE[block] for block in image.config[name]]
    video = UNet3DConditionModel(**settings)
    shapes = {name: p.shape for name, p in video.named_parameters()}
    space = {name: p.reshape(shapes[name]) for name, p in image.named_parameters()}
    _, unknown = video.load_state_dict(space, strict=False)
    if unknown:
        raise ValueError(f"the image UNet has parts that a video UNet lacks: {unknown}")
    for name, parameter in video.named_parameters():
        if name not in space and ".proj_out." in name:  # diffusers' convolutions over time start so
            nn.init.zeros_(parameter)
    tell_order(video)
    return video.eval()  # no dropout: it would draw from a generator that no snapshot holds


@torch.no_grad()
def tell_order(unet: UNet3DConditionModel) -> None:
    """Let an untrained UNet know which frame is which.

    Attention over frames has no encoding of their order in this architecture. Only the zeros with which
    convolutions over time are padded tell the first and the last frames from others, and in features that
    come from an image model this is too faint for a direction of motion to be learned from. So on the way
    down, in every such layer, one group of channels is cut off from the input: it carries constants and
    the padding's trace in them, a code of the frame's place, and is added to the features. (Three paddings
    reach three frames from each end: the middle two of eight have one code at first.)
    """
    for name, layer in unet.named_modules():
        if not isinstance(layer, TemporalConvLayer) or name.startswith("up_blocks."):
            continue
        first, *inner, last = [m for m in layer.modules() if isinstance(m, nn.Conv3d)]
        norm = next(m for m in layer.conv2 if isinstance(m, nn.GroupNorm))
        width = first.out_channels // norm.num_groups
        first.weight[:width] = 0
        nn.init.normal_(cast(Tensor, first.bias)[:width])
        for convolution in inner:
            convolution.weight[:width] = 0
            nn.init.normal_(convolution.weight[:width, :width], std=(3 * width) ** -0.5)
        nn.init.normal_(last.weight[:, :width], std=ORDER * (3 * width) ** -0.5)


class VideoModel(nn.Module):
    """UNet and the frozen text encoder as one module whose parameters are the UNet's."""

    def __init__(self, unet: UNet3DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet = unet
        self._texts = [text_encoder.requires_grad_(False).eval()]  # in a list: not a submodule

    def forward(self, noisy: Tensor, timestep: Tensor, ids: Tensor) -> Tensor:
        """Predicted noise; noisy [B, 8, FRAMES, 8, 8], timestep [B], ids [B, 24]."""
        states = self._texts[0](input_ids=ids).last_hidden_state
        return self.unet(noisy, timestep, states).sample


def velocity_loss(
    model: nn.Module, latents: Tensor, ids: Tensor, alphas: Tensor, rng: torch.Generator
) -> Tensor:
    """Squared error of the predicted velocity √ᾱ ε − √(1 − ᾱ) x_0 (Salimans and Ho 2022) at random timesteps.

    Timesteps are drawn in proportion to themselves: where noise prevails, words decide what moves where.

    latents [B, 8, frames, 8, 8]; ids [B, 24]; alphas: cumulative products, [1000].
    """
    uniform = torch.rand(len(latents), generator=rng)
    timestep = (uniform.sqrt() * len(alphas)).long()
    return velocity_errors(model, latents, ids, alphas, timestep, rng).mean()


def velocity_errors(
    model: nn.Module, latents: Tensor, ids: Tensor, alphas: Tensor, timestep: Tensor, rng: torch.Generator
) -> Tensor:
    """Mean squared error of each clip's velocity at its timestep, [B]."""
    noise = torch.randn(latents.shape, generator=rng)
    alpha = alphas[timestep].view(-1, 1, 1, 1, 1)
    predicted = model(alpha.sqrt() * latents + (1 - alpha).sqrt() * noise, timestep, ids)
    wrong = predicted - alpha.sqrt() * noise + (1 - alpha).sqrt() * latents
    return wrong.pow(2).flatten(1).mean(dim=1)


@dataclass(frozen=True)
class ClipCache:
    """Latents of composed clips, float16 [N, CACHE, 8, FRAMES, 8, 8], of unit variance; what they show."""

    latents: Tensor
    backgrounds: list[list[int]]
    motions: list[list[str]]


@torch.no_grad()
def build_clips(vae: AutoencoderKL, library: Library, count: int, rng: np.random.Generator) -> ClipCache:
    """Compose and encode `count` clips per emoji, none of them a held-out combination."""
    latents, backgrounds, motions = [], [], []
    for i, row in enumerate(library.rows):
        allowed = [
            (b, words)
            for b, colour in enumerate(BACKGROUND_NAMES)
            for words in MOTIONS
            if not is_heldout_clip(row.name, colour, words, row.style)
        ]
        drawn = [allowed[k] for k in rng.integers(len(allowed), size=count)]
        backgrounds.append([b for b, _ in drawn])
        motions.append([words for _, words in drawn])
        clips = [show_clip(library.pictures[i], b, words, rng) for b, words in drawn]
        flat = encode(vae, torch.cat(clips)).mean * scaling_factor(vae)
        latents.append(flat.unflatten(0, (count, FRAMES)).transpose(1, 2).half())
    return ClipCache(torch.stack(latents), backgrounds, motions)


def show_clip(picture: Tensor, background: int, words: str, rng: np.random.Generator) -> Tensor:
    """A clip [FRAMES, 3, 64, 64] in [−1, 1] of one emoji [4, 64, 64], premultiplied RGBA."""
    placements = sample_clip(words, rng)
    return compose(picture.expand(FRAMES, -1, -1, -1), [background] * FRAMES, placements)


def draw_clips(cache: ClipCache, library: Library, rng: np.random.Generator) -> tuple[Tensor, list[str]]:
    """Latents [BATCH, 8, FRAMES, 8, 8] and captions of random clips; some captions are empty (guidance)."""
    emoji, view = rng.integers(len(library), size=BATCH), rng.integers(CACHE, size=BATCH)
    captions = [
        ""
        if rng.random() < DROP_CAPTION
        else caption(
            library.rows[i].name,
            BACKGROUND_NAMES[cache.backgrounds[i][k]],
            library.rows[i].style if rng.random() < SAY_STYLE else None,
            after=cache.motions[i][k],
        )
        for i, k in zip(emoji, view, strict=True)
    ]
    return cache.latents[emoji, view].float(), captions


class DirectionTest:
    """By how much the error rises on held-out clips if captions say the opposite direction."""

    def __init__(self, vae: AutoencoderKL, library: Library, tokenizer: CLIPTokenizer) -> None:
        rng, words = np.random.default_rng(0), list(MOTIONS)
        index = {row.name: i for i, row in enumerate(library.rows)}
        shown = clip_combinations(heldout=True)[:32]
        opposite = [(name, colour, words[words.index(m) ^ 1]) for name, colour, m in shown]
        clips = [
            show_clip(library.pictures[index[name]], BACKGROUND_NAMES.index(colour), m, rng)
            for name, colour, m in shown
        ]
        with torch.no_grad():
            flat = encode(vae, torch.cat(clips)).mean * scaling_factor(vae)
        self._latents = flat.unflatten(0, (len(shown), FRAMES)).transpose(1, 2)
        self._ids = [token_ids(tokenizer, [clip_prompt(*c) for c in texts]) for texts in (shown, opposite)]

    @torch.no_grad()
    def __call__(self, training: Training) -> str:
        """A line for the log, at two noise levels."""
        alphas, found = make_video_scheduler().alphas_cumprod, []
        for t in (700, 950):
            timestep = torch.full((len(self._latents),), t)
            right, wrong = (
                velocity_errors(
                    training.model, self._latents, ids, alphas, timestep, torch.Generator().manual_seed(t)
                )
                for ids in self._ids
            )
            gap = wrong - right
            found.append(
                f"t={t} error {right.mean():.4f}, opposite direction {gap.mean():+.4f}"
                f" ± {gap.std() / len(gap) ** 0.5:.4f}"
            )
        return "; ".join(found)


def train_video(
    work: Path,
    image: Path,
    steps: int,
    seed: int,
    log: Callable[[str], None] = print,
    milestones: tuple[int, ...] = (),
    decay: int = 0,
) -> Path:
    """Train the video model from the image pipeline in `image`; snapshots go to `work/video-training`."""
    library, _ = load_library(work)
    tokenizer = CLIPTokenizer.from_pretrained(image / "tokenizer", local_files_only=True)
    vae = AutoencoderKL.from_pretrained(image / "vae", torch_dtype=torch.float32).eval()
    texts = CLIPTextModel.from_pretrained(image / "text_encoder", dtype=torch.float32)
    start = time.process_time()
    cache = build_clips(vae, library, CACHE, np.random.default_rng(seed + 1))
    log(f"{cache.latents.shape[0] * CACHE} clips, cpu-s {time.process_time() - start:.0f}")
    torch.manual_seed(seed)
    flat = UNet2DConditionModel.from_pretrained(image / "unet", torch_dtype=torch.float32)
    model = VideoModel(grow_unet(flat), texts)
    log(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")
    alphas = make_video_scheduler().alphas_cumprod
    report = DirectionTest(vae, library, tokenizer)

    def loss(training: Training) -> Tensor:
        latents, captions = draw_clips(cache, library, training.numpy_rng)
        ids = token_ids(tokenizer, captions)
        return velocity_loss(training.model, latents, ids, alphas, training.torch_rng)

    training = Training(model, make_optimizer(model), seed, ema_decay=0.9995)
    schedule = Schedule(steps, decay=decay)
    train(
        training,
        loss,
        schedule,
        work / "video-training",
        log=log,
        milestones=milestones,
        report=report,
        report_every=250,
    )
    log(f"cpu-s {time.process_time() - start:.0f}")
    return work / "video-training"


def make_optimizer(model: nn.Module) -> MuonAdam:
    """Muon for the inner layers, Adam for first and last layers."""
    return MuonAdam(
        model.named_parameters(),
        lr=0.015,
        adam_lr=1.5e-3,
        weight_decay=0.02,
        adam_only=("conv_in", "conv_out", "embedding"),
    )
