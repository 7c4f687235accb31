"""Files of pictures and videos, and back."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

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
