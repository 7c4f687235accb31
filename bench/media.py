"""Pictures as numbers a file can hold."""

import torch
from PIL import Image
from torch import Tensor


def to_bytes(media: Tensor) -> Tensor:
    """Media in [0, 1] as uint8 0 … 255 on the CPU, rounded to nearest; values outside are clipped."""
    return (media.detach().float() * 255).round().clamp(0, 255).to(torch.uint8).cpu()


def to_pil(image: Tensor) -> Image.Image:
    """An image [3, H, W] in [0, 1], or uint8, as a Pillow image."""
    pixels = image if image.dtype == torch.uint8 else to_bytes(image)
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
