"""Pictures and videos as numbers a file can hold, and as files.

A video is stored as a filmstrip (`bench.base.filmstrip`), and as an animated GIF to look at.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from bench.base.errors import BenchError
from bench.base.filmstrip import FRAME_MS, FRAMES, frames_in, opened

GREY16 = 65535  # white in 16 bits


def to_bytes(media: Tensor) -> Tensor:
    """Media in [0, 1] as uint8 0 … 255 on the CPU, rounded to nearest; values outside are clipped.

    Raises BenchError for values that are not finite, which would turn black or white.
    """
    values = media.detach().float()
    if bad := int((~values.isfinite()).sum()):
        raise BenchError(
            f"{bad} of {values.numel()} values of a picture or video are not finite, so it is not written. "
            "What made it overflows or holds such weights: --set model.vae_dtype=float32, or another LoRA"
        )
    return (values * 255).round().clamp(0, 255).to(torch.uint8).cpu()


def to_pil(image: Tensor) -> Image.Image:
    """An image [3, H, W] in [0, 1], or uint8, as a Pillow image."""
    pixels = image if image.dtype == torch.uint8 else to_bytes(image)
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def still(media: Tensor) -> Image.Image:
    """An image as it is; of a video [F, 3, H, W] its filmstrip, the frames side by side."""
    return to_pil(media if media.ndim == 3 else torch.cat(list(media), dim=2))


def files(media: Tensor) -> dict[str, bytes]:
    """The files, by suffix, of an image [3, H, W] (`.png`) or a video [F, 3, H, W] (`.png`, `.gif`).

    Values in [0, 1], or uint8.
    """
    stream = io.BytesIO()
    if media.ndim == 3:
        still(media).save(stream, "PNG")
        return {".png": stream.getvalue()}
    text = PngInfo()
    text.add_text(FRAMES, str(len(media)))
    still(media).save(stream, "PNG", pnginfo=text)
    return {".png": stream.getvalue(), ".gif": _gif(media)}


def _gif(video: Tensor) -> bytes:
    first, *others = [to_pil(frame) for frame in video]
    stream = io.BytesIO()
    first.save(stream, "GIF", save_all=True, append_images=others, duration=FRAME_MS, loop=0)
    return stream.getvalue()


def read(file: Path) -> Tensor:
    """A picture [3, H, W], or a filmstrip's video [F, 3, H, W], in [0, 1], turned as its EXIF tag says.

    Raises BenchError for what is no picture, and for what has no one meaning as one: transparent pixels, or
    several frames that are no filmstrip.
    """
    try:
        with opened(file) as image:
            count = frames_in(image)
            if getattr(image, "n_frames", 1) > 1:
                raise BenchError(f"{file}: is an animation, not a picture: give its frames one by one")
            media = _pixels(file, ImageOps.exif_transpose(image))
    except (OSError, ValueError) as error:
        raise BenchError(f"{file}: cannot be read as a picture: {error}") from error
    return media if count == 1 else torch.stack(media.chunk(count, dim=2))


def _pixels(file: Path, image: Image.Image) -> Tensor:
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow itself would clip at 255
        grey = torch.from_numpy(np.asarray(image).astype(np.float32)) / GREY16
        return grey.clamp(0, 1).expand(3, -1, -1).contiguous()
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise BenchError(
                f"{file}: has transparent pixels: put it on a background, which decides its looks"
            )
    values = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    return values.reshape(image.height, image.width, 3).permute(2, 0, 1).float() / 255
