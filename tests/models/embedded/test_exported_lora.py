"""A folder that `bench export` made: it draws the cell's own pictures, here and in plain diffusers, by the
lines of its card."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from bench.experiment.model_files import model_settings
from bench.experiment.overrides import typed
from bench.report.export import folder
from bench.run.evaluate import noise, sample_images
from bench.run.load import load_chain, load_lora
from bench.run.sample import draw, write
from bench.run.store import CellDir
from tests.report import fake
from tests.support.pipelines import CPU
from tests.support.toys import fill

pytestmark = pytest.mark.slow

PROMPT = fake.PROMPTS[0]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(root: Path, model: str) -> tuple[CellDir, Any]:
    """A made-up cell with the LoRA of a real model, and that model.

    4 steps: they divide 1,000, where DDIM's steps join in diffusers, too (docs/models.md).
    """
    (cell,) = (fake.write(root, ["full_bp"], pictures=False) / "cells").glob("full_bp-*")
    config = model_settings(model, typed(["model.steps=4", "model.lora.rank=2", "model.lora.alpha=6"]))
    chain = load_chain(config, CPU)
    torch.manual_seed(2)
    fill(chain, 0.15)
    chain.save_lora(cell / "lora")  # type: ignore[attr-defined]
    settings = fake.config("full_bp", 0)
    settings["model"] = {"name": model, "config": json.loads(config.model_dump_json())}
    (cell / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return CellDir(cell), chain


def drawn(chain: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return sample_images(chain, [PROMPT], x)


def by_diffusers(readme: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the card's own lines of Python leave behind: the pipeline that has just drawn."""
    found = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert found is not None and "'FOLDER'" in found[1]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(found[1].replace("'FOLDER'", repr(str(place))), names)
    assert (tmp_path / ("clip.gif" if "frames" in names else "picture.png")).stat().st_size > 0
    names["pipe"].set_progress_bar_config(disable=True)
    return names["pipe"]


@pytest.mark.parametrize("model", ["tiny", "tiny-flow", "tiny-video"])
def test_it_draws_the_cells_pictures_in_diffusers_and_here(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, chain = trained(tmp_path / "fight", model)
    out = tmp_path / "out"
    made = folder.build(cell, None)
    folder.write(made, out, overwrite=False)
    x = noise(chain, 0, [(0, 0)])
    ours = drawn(chain, x)
    pipe = by_diffusers((out / "README.md").read_text(), out, tmp_path, monkeypatch)
    options: dict[str, Any] = {"num_frames": ours.shape[1]} if model == "tiny-video" else {}
    arguments = {"num_inference_steps": 4, "guidance_scale": 1.0, "output_type": "pt", **options}
    for adapter in (True, False):
        if not adapter:
            pipe.unload_lora_weights()
        found = pipe(PROMPT, latents=x, **arguments)
        theirs = found.frames if model == "tiny-video" else found.images
        assert torch.allclose(theirs, ours, rtol=0, atol=5e-4) is adapter
    name = "kohya/full_bp-tiny-clip-s0.safetensors"
    if model == "tiny-video":
        assert not (out / name).exists()
        assert made.lacks[0] == (
            "no file in kohya's key style: kohya's programs have no names for models of family video"
        )
    else:
        assert any(key.endswith(".alpha") for key in load_file(out / name))
    if model == "tiny":
        pipe.load_lora_weights(str(out), weight_name=name)
        torch.testing.assert_close(pipe(PROMPT, latents=x, **arguments).images, ours, rtol=0, atol=5e-4)
        load_lora(chain, out / name)
        torch.testing.assert_close(drawn(chain, x), ours)
    pictures = [
        write(draw(PROMPT, None, place, 1, 0, ()), PROMPT, tmp_path / f"by {place.name}")[0].read_bytes()
        for place in (cell.path, out)
    ]
    assert pictures[0] == pictures[1]
