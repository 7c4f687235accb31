"""Pictures from a model, with or without a trained LoRA: `python -m bench sample`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from bench.config import parse_setting
from bench.evaluate import noise, sample_images
from bench.models.config import ModelConfig
from bench.parts import Layer, model_settings
from bench.runtime import find_lora, load_chain, load_lora, start
from bench.store import CellDir, write_atomically
from bench.train import png


def write_samples(
    prompt: str,
    model: str | None,
    lora: Path | None,
    count: int,
    seed: int,
    out: Path,
    settings: Sequence[str],
) -> list[Path]:
    """Draw `count` pictures of a prompt by the deterministic sampler. Returns the PNG files."""
    adapter = None if lora is None else find_lora(lora, "--lora")
    config = _model(model, lora, settings)
    _, device = start(threads=torch.get_num_threads())
    chain = load_chain(config, device)
    if adapter is not None:
        load_lora(chain, adapter)
    with torch.no_grad():
        images = sample_images(chain, [prompt] * count, noise(chain, seed, [(0, k) for k in range(count)]))
    files = [out / f"{k:02d}.png" for k in range(count)]
    for file, image in zip(files, images, strict=True):
        write_atomically(file, png(image))
    return files


def _model(name: str | None, lora: Path | None, settings: Sequence[str]) -> ModelConfig:
    """A cell's LoRA is drawn with the settings that it was trained with, unless --set says otherwise."""
    layers = [Layer(*parse_setting(text)) for text in settings]
    if lora is None or not (lora / "config.yaml").is_file():
        return model_settings("tiny" if name is None else name, layers)
    trained = CellDir(lora).config().model
    kept = trained.config.model_dump(exclude={"source", "path", "revision"})
    layers.insert(0, Layer(str(lora / "config.yaml"), {"model": kept}))
    return model_settings(trained.name if name is None else name, layers)
