"""Files of pictures and videos, and back."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from bench.base.errors import BenchError
from bench.base.filmstrip import frames_in
from bench.base.media import files, read, to_bytes


def test_an_image_is_one_png_and_comes_back(tmp_path: Path) -> None:
    image = torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(0))
    (tmp_path / "x.png").write_bytes(files(image)[".png"])
    assert list(files(image)) == [".png"]
    assert torch.equal(to_bytes(read(tmp_path / "x.png")), to_bytes(image))


def test_a_video_is_a_filmstrip_that_comes_back_and_a_gif_of_its_frames(tmp_path: Path) -> None:
    video = torch.rand(5, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    found = files(to_bytes(video))
    assert list(found) == [".png", ".gif"]
    (tmp_path / "x.png").write_bytes(found[".png"])
    with Image.open(tmp_path / "x.png") as strip:
        assert strip.size == (5 * 12, 8) and frames_in(strip) == 5
    assert torch.equal(to_bytes(read(tmp_path / "x.png")), to_bytes(video))
    gif = Image.open(io.BytesIO(found[".gif"]))
    assert getattr(gif, "n_frames", 1) == 5 and gif.size == (12, 8)


def test_a_file_that_is_no_picture_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no")
    with pytest.raises(BenchError, match=r"x\.png: cannot be read as a picture"):
        read(tmp_path / "x.png")


@pytest.mark.silent
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_of_grey_keep_their_shades(tmp_path: Path, suffix: str) -> None:
    grey = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / f"x{suffix}")
    found = read(tmp_path / f"x{suffix}")
    assert torch.allclose(found, torch.from_numpy(grey / 65535).float().expand(3, 1, 4))


@pytest.mark.silent
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_refused_and_opaque_ones_are_not(tmp_path: Path, mode: str) -> None:
    """Their hidden colours would be scored."""
    picture = Image.new("RGBA", (4, 4), (255, 255, 255, 255))
    picture.convert(mode).save(tmp_path / "opaque.png")
    assert read(tmp_path / "opaque.png").min() == 1
    picture.putpixel((0, 0), (0, 0, 0, 0))
    saved = picture.quantize(4) if mode == "P" else picture.convert(mode)
    saved.save(tmp_path / "clear.png")
    with pytest.raises(BenchError, match="transparent pixels: put it on a background"):
        read(tmp_path / "clear.png")


@pytest.mark.silent
def test_a_photo_is_turned_as_its_tag_says(tmp_path: Path) -> None:
    upright = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10)
    tag = Image.Exif()
    tag[0x0112] = 6  # stored turned by 90° to the left
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=tag)
    upright.save(tmp_path / "upright.png")
    assert torch.equal(read(tmp_path / "turned.png"), read(tmp_path / "upright.png"))


@pytest.mark.silent
@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_an_animation_is_not_its_first_frame(tmp_path: Path, suffix: str) -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    first.save(tmp_path / f"x{suffix}", save_all=True, append_images=[second])
    with pytest.raises(BenchError, match="is an animation"):
        read(tmp_path / f"x{suffix}")


@pytest.mark.silent
def test_a_file_that_is_cut_short_is_no_picture_whatever_vbench_told_pillow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    file = tmp_path / "torn.png"
    Image.effect_noise((32, 32), 50).convert("RGB").save(file)
    read(file)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(BenchError, match="cannot be read as a picture"):
        read(file)
    assert ImageFile.LOAD_TRUNCATED_IMAGES
