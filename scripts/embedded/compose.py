"""Compose training pictures: an emoji, placed, over a plain background."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.data.prompts.emoji import BACKGROUNDS, CONCEPTS
from scripts.embedded.data import Picture, load_data
from scripts.embedded.placement import Placement

BACKGROUND_NAMES: tuple[str, ...] = tuple(BACKGROUNDS)
_COLOURS = torch.tensor(list(BACKGROUNDS.values()), dtype=torch.float32) / 255


@dataclass(frozen=True)
class Library:
    """Emoji to compose from: `pictures` premultiplied RGBA in [0, 1], [N, 4, 64, 64]; `rows` say what."""

    pictures: Tensor
    rows: list[Picture]

    def __len__(self) -> int:
        return len(self.rows)

    def subset(self, wanted: list[int]) -> "Library":
        """Only the emoji with these indices, in this order."""
        return Library(self.pictures[wanted], [self.rows[i] for i in wanted])


def load_library(work: Path) -> tuple[Library, Library]:
    """(the concepts' emoji in the order of `CONCEPTS` × vendor, all other emoji)."""
    raw, rows = load_data(work)
    pictures = torch.from_numpy(raw).permute(0, 3, 1, 2).float() / 255
    everything = Library(pictures.contiguous(), rows)
    order = {name: i for i, name in enumerate(CONCEPTS)}
    known = sorted((i for i, r in enumerate(rows) if r.name in order), key=lambda i: (order[rows[i].name], i))
    others = [i for i, r in enumerate(rows) if r.name not in order]
    return everything.subset(known), everything.subset(others)


def _inverse_transforms(placements: list[Placement]) -> Tensor:
    """[B, 2, 3] matrices from output to input coordinates (both in [−1, 1], y down), for `affine_grid`."""
    scale, angle, x, y = (
        torch.tensor([getattr(p, name) for p in placements], dtype=torch.float32)
        for name in ("scale", "angle", "x", "y")
    )
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    # A turn by +angle looks counter-clockwise, so with y down its inverse is [[cos, −sin], [sin, cos]].
    return torch.stack(
        [
            torch.stack([cos, -sin, -(cos * x - sin * y)], -1),
            torch.stack([sin, cos, -(sin * x + cos * y)], -1),
        ],
        dim=1,
    )


def compose(pictures: Tensor, backgrounds: Tensor | list[int], placements: list[Placement]) -> Tensor:
    """RGB pictures in [−1, 1], [B, 3, 64, 64].

    pictures: premultiplied RGBA in [0, 1], [B, 4, 64, 64]. backgrounds: indices into `BACKGROUND_NAMES`, [B].
    """
    size = list(pictures.shape)
    grid = torch.nn.functional.affine_grid(_inverse_transforms(placements), size, align_corners=False)
    moved = torch.nn.functional.grid_sample(pictures, grid, padding_mode="zeros", align_corners=False)
    colour = _COLOURS[torch.as_tensor(backgrounds)][:, :, None, None]
    return (moved[:, :3] + (1 - moved[:, 3:]) * colour).clamp(0, 1) * 2 - 1


def sample_backgrounds(count: int, rng: np.random.Generator) -> list[int]:
    """Indices into `BACKGROUND_NAMES`; white twice as often as any other colour."""
    weights = np.array([2.0 if name == "white" else 1.0 for name in BACKGROUND_NAMES])
    return rng.choice(len(weights), size=count, p=weights / weights.sum()).tolist()
