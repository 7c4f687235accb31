"""Training batches for the reward: pictures in many states of repair, captions, and which is true of
which.

The reward has to judge pictures that a small image model makes, so it must not be taught on clean
pictures alone: a part of the pictures has gone through the autoencoder, with noise on the latents; others
are noisy, blurred, sheared, recoloured or have a patch missing. Ruined pictures (latents drowned in
noise, two pictures cut together) take part as pictures that no caption describes. And because backgrounds
are easy and objects hard, many batches share one background.
"""

from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from bench.data.prompts.emoji import STYLES
from scripts.embedded.captions import Claim, sample_background, sample_caption
from scripts.embedded.compose import BACKGROUND_NAMES, Library, compose
from scripts.embedded.placement import Placement, sample_placement
from scripts.embedded.vae import decode, encode, scaling_factor

REBUILT_PER_EMOJI = 16
RUINED = 768


def is_heldout_rendering(name: str, style: str) -> bool:
    """Whether the reward never sees this drawing: one vendor's of about a quarter of the objects."""
    digest = crc32(f"rendering/{name}".encode())
    return digest % 4 == 0 and STYLES[digest // 4 % 3] == style


def split_renderings(library: Library) -> tuple[Library, Library]:
    """(for training the reward, held-out renderings)."""
    held = [is_heldout_rendering(row.name, row.style) for row in library.rows]
    train = [i for i, h in enumerate(held) if not h]
    return library.subset(train), library.subset([i for i, h in enumerate(held) if h])


@dataclass(frozen=True)
class Scene:
    """What a picture shows: index of the emoji in the library, index of the background, placement."""

    emoji: int
    background: int
    placement: Placement


@dataclass(frozen=True)
class Batch:
    """pictures [B + R, 3, 64, 64] in [−1, 1], of which the last R are ruined; B captions; truth [B, B] bool:
    truth[i, j] = caption j is true of picture i."""

    pictures: Tensor
    captions: list[str]
    truth: Tensor


@torch.no_grad()
def _through_vae(vae: AutoencoderKL, x: Tensor, noise: Tensor, rng: torch.Generator) -> Tensor:
    """Encode, add Gaussian noise of standard deviation `noise` [B] (latents have 1), decode; uint8."""
    scale = scaling_factor(vae)
    latents = encode(vae, x).mean * scale
    latents = latents + noise.view(-1, 1, 1, 1) * torch.randn(latents.shape, generator=rng)
    return to_bytes(decode(vae, latents / scale))


def to_bytes(x: Tensor) -> Tensor:
    """[−1, 1] → uint8."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_bytes(x: Tensor) -> Tensor:
    """uint8 → [−1, 1]."""
    return x.float() / 127.5 - 1


class BatchMaker:
    """Draws training batches for the reward from a library, without held-out combinations."""

    def __init__(self, library: Library, vae: AutoencoderKL, seed: int) -> None:
        self.library = library
        self.by_name: dict[str, list[int]] = {}
        for i, row in enumerate(library.rows):
            self.by_name.setdefault(row.name, []).append(i)
        rng, torch_rng = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        self.scenes: list[list[Scene]] = []
        rebuilt = []
        for i in range(len(library)):
            scenes = [self._scene(i, rng) for _ in range(REBUILT_PER_EMOJI)]
            noise = 0.45 * torch.rand(REBUILT_PER_EMOJI, generator=torch_rng)
            rebuilt.append(_through_vae(vae, self._compose(scenes), noise, torch_rng))
            self.scenes.append(scenes)
        self.rebuilt = torch.stack(rebuilt)
        self.ruined = self._ruin(vae, rng, torch_rng)

    def _scene(self, emoji: int, rng: np.random.Generator, weights: np.ndarray | None = None) -> Scene:
        weights = np.ones(len(BACKGROUND_NAMES)) if weights is None else weights
        row = self.library.rows[emoji]
        return Scene(emoji, sample_background(row, weights, rng), sample_placement(rng))

    def _compose(self, scenes: list[Scene], recolour: Tensor | None = None) -> Tensor:
        pictures = self.library.pictures[[s.emoji for s in scenes]]
        if recolour is not None:
            # Premultiplied colour must stay below alpha.
            colour = torch.minimum(pictures[:, :3] * recolour[:, :, None, None], pictures[:, 3:])
            pictures = torch.cat([colour, pictures[:, 3:]], 1)
        return compose(pictures, [s.background for s in scenes], [s.placement for s in scenes])

    def _ruin(self, vae: AutoencoderKL, rng: np.random.Generator, torch_rng: torch.Generator) -> Tensor:
        """uint8 [RUINED, 3, 64, 64]: half drowned in latent noise, half checkerboards of two pictures."""
        out = []
        for k in range(RUINED // 32):
            x = self._compose([self._scene(int(i), rng) for i in rng.integers(len(self.library), size=32)])
            if k % 2 == 0:
                noise = 0.7 + 0.6 * torch.rand(32, generator=torch_rng)
                out.append(_through_vae(vae, x, noise, torch_rng))
            else:
                cell = int(rng.choice([8, 16, 32]))
                lines = torch.arange(64) // cell
                mask = (lines[:, None] + lines[None, :]) % 2 == 0
                out.append(to_bytes(torch.where(mask, x, x.roll(1, 0))))
        return torch.cat(out)

    def draw(
        self, size: int, ruined: int, rng: np.random.Generator, torch_rng: torch.Generator, hard: bool = False
    ) -> Batch:
        """A batch of `size` described and `ruined` ruined pictures.

        Some emoji occur twice, with other backgrounds or placements. In a hard batch half of the pictures
        repeat an object of the other half, so that style and placement must be told apart as well.
        """
        weights = np.ones(len(BACKGROUND_NAMES))
        if rng.random() < 0.6:
            weights[rng.integers(len(weights))] = 200.0  # nearly one background: objects must be told apart
        emoji = rng.integers(len(self.library), size=size)
        eighth = size // 8
        emoji[:eighth] = emoji[eighth : 2 * eighth]
        if hard:
            emoji[2 * eighth : 4 * eighth] = emoji[4 * eighth : 6 * eighth]
            for slot in range(eighth):
                same = self.by_name[self.library.rows[emoji[6 * eighth + slot]].name]
                emoji[7 * eighth + slot] = same[rng.integers(len(same))]
        scenes = [self._scene(int(i), rng, weights) for i in emoji]
        recolour = 1 + 0.12 * (2 * torch.rand(size, 3, generator=torch_rng) - 1)
        x = self._compose(scenes, recolour)
        for slot in np.flatnonzero(rng.random(size) < 0.3):
            view = int(rng.integers(REBUILT_PER_EMOJI))
            scenes[slot] = self.scenes[scenes[slot].emoji][view]
            x[slot] = from_bytes(self.rebuilt[scenes[slot].emoji, view])
        x = damage(x, torch_rng)
        claims = [self._claim(scene, rng) for scene in scenes]
        truth = torch.zeros(size, size, dtype=torch.bool)
        for i, scene in enumerate(scenes):
            row, colour = self.library.rows[scene.emoji], BACKGROUND_NAMES[scene.background]
            for j, claim in enumerate(claims):
                if claim.name == row.name:
                    truth[i, j] = claim.holds(row, colour, scene.placement)
        junk = from_bytes(self.ruined[rng.integers(RUINED, size=ruined)])
        return Batch(torch.cat([x, junk]), [claim.text for claim in claims], truth)

    def _claim(self, scene: Scene, rng: np.random.Generator) -> Claim:
        row = self.library.rows[scene.emoji]
        return sample_caption(row, BACKGROUND_NAMES[scene.background], scene.placement, rng)


def _warp(x: Tensor, rng: torch.Generator) -> Tensor:
    """A little shear, stretch, turn and shift; the border's colour fills what comes in."""
    count = len(x)
    matrix = torch.eye(2) + 0.12 * (2 * torch.rand(count, 2, 2, generator=rng) - 1)
    shift = 0.06 * (2 * torch.rand(count, 2, 1, generator=rng) - 1)
    grid = functional.affine_grid(torch.cat([matrix, shift], 2), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _erase(x: Tensor, rng: torch.Generator) -> Tensor:
    """Grey out a 16×16 square."""
    x = x.clone()
    for picture, corner in zip(x, torch.randint(0, 49, (len(x), 2), generator=rng).tolist(), strict=True):
        picture[:, corner[0] : corner[0] + 16, corner[1] : corner[1] + 16] = 0
    return x


def damage(x: Tensor, rng: torch.Generator) -> Tensor:
    """Warp half of the pictures (in [−1, 1]), blur, erase and add noise to others."""

    def some(share: float) -> Tensor:
        return torch.rand(len(x), generator=rng) < share

    for share, change in ((0.5, _warp), (0.15, _erase)):
        chosen = some(share)
        x[chosen] = change(x[chosen], rng)
    chosen = some(0.25)
    small = functional.avg_pool2d(x[chosen], 2)
    x[chosen] = functional.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    chosen = some(0.5)
    strength = 0.25 * torch.rand(int(chosen.sum()), 1, 1, 1, generator=rng)
    x[chosen] = x[chosen] + strength * torch.randn(x[chosen].shape, generator=rng)
    return x.clamp_(-1, 1)
