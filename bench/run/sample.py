"""Pictures from a model, with or without a trained LoRA: `python -m bench sample`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.base.layers import Layers
from bench.base.media import files as files_of
from bench.data.prompts.dcot import DcotConfig
from bench.experiment.identity import PLACES
from bench.experiment.model_files import model_settings
from bench.experiment.overrides import Override, typed
from bench.models.config import ModelConfig
from bench.run.evaluate import noise, sample_images
from bench.run.load import find_lora, load_chain, load_lora, schedule_texts, start
from bench.run.store import CellDir


def draw(
    prompt: str,
    model: str | None,
    lora: Path | None,
    count: int,
    seed: int,
    settings: Sequence[str],
    dcot: bool | None = None,
) -> Tensor:
    """`count` pictures of a prompt by the deterministic sampler, [count, 3, H, W] in [0, 1]; videos [count,
    F, 3, H, W].

    dcot: coarse, mid and fine steps see the prompt's decomposition; None: as the cell was trained.
    """
    adapter = None if lora is None else find_lora(lora, "--lora")
    layers = typed(settings)
    own = trained_dcot(lora)
    decomposed = _dcot(own, layers) if dcot or (dcot is None and own is not None) else None
    of_model = [layer for layer in layers if decomposed is None or set(layer.tree) != {"dcot"}]
    _, config = trained_model(model, lora, of_model)
    _, device = start(threads=torch.get_num_threads())
    chain = load_chain(config, device)
    if adapter is not None:
        load_lora(chain, adapter)
    if decomposed is not None:
        schedule_texts(chain, [prompt], decomposed)
    with torch.no_grad():
        return sample_images(chain, [prompt] * count, noise(chain, seed, [(0, k) for k in range(count)]))


def write(pictures: Tensor, prompt: str, out: Path) -> list[Path]:
    """Write what was drawn into a directory. Returns the PNG files.

    Of a video that is its filmstrip, with a GIF beside it. A text file beside each has its prompt, where
    `bench evaluate --images` looks for it.
    """
    files = [out / f"{k:02d}.png" for k in range(len(pictures))]
    for file, picture in zip(files, pictures, strict=True):
        for suffix, data in files_of(picture).items():
            write_atomically(file.with_suffix(suffix), data)
        write_atomically(file.with_suffix(".txt"), prompt + "\n")
    return files


def _dcot(own: DcotConfig | None, layers: Sequence[Override]) -> DcotConfig:
    """The settings of section `dcot` among these, over a cell's own."""
    chosen = Layers()
    if own is not None:
        chosen.add("the cell", "dcot", own.model_dump(mode="json"))
    for layer in layers:
        if "dcot" in layer.tree:
            chosen.add(layer.origin, "dcot", layer.tree["dcot"])
    return chosen.build(DcotConfig)


def trained_dcot(lora: Path | None) -> DcotConfig | None:
    """The decomposition that a cell was trained with; None for none, and for an adapter from elsewhere."""
    return CellDir(lora).config().dcot if lora is not None and (lora / "config.yaml").is_file() else None


def trained_model(name: str | None, lora: Path | None, layers: list[Override]) -> tuple[str, ModelConfig]:
    """A model's name and settings. A cell's LoRA is drawn with the settings that it was trained with, unless
    --set says otherwise."""
    if lora is None or not (lora / "config.yaml").is_file():
        name = "tiny" if name is None else name
        return name, model_settings(name, layers)
    trained = CellDir(lora).config().model
    # Of path:DIRECTORY and hub:ORG/NAME the cell says which family it is.
    named = None if name is None or ":" in name else name
    if named is not None and (family := model_settings(named, []).family) != trained.config.family:
        raise BenchError(
            f"--model {named}: a model of family {family}, and the LoRA in {lora} was trained on "
            f"{trained.name}, of family {trained.config.family}. Leave --model out, or choose another LoRA"
        )
    kept = trained.config.model_dump(exclude=set(PLACES))
    own = Override(str(lora / "config.yaml"), {"model": kept})
    name = trained.name if name is None else name
    return name, model_settings(name, [own, *layers])
