"""Image chains on random pipelines, built once per test process."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from bench.models.config import LoraConfig, ModelConfig
from bench.models.embedded.export import Prediction
from bench.models.embedded.random_init import build_random_pipeline
from bench.models.image import ImageChain, load_image_chain
from tests.toys import fill

CPU = torch.device("cpu")

_scratch = Path(tempfile.mkdtemp(prefix="bench-tests-"))
atexit.register(shutil.rmtree, _scratch, ignore_errors=True)


@cache
def pipeline_dir(prediction_type: Prediction = "epsilon", set_alpha_to_one: bool = False) -> Path:
    """A random pipeline on disk, removed at exit."""
    name = f"{prediction_type}-{set_alpha_to_one}"
    return build_random_pipeline(
        _scratch / name, prediction_type=prediction_type, set_alpha_to_one=set_alpha_to_one
    )


def image_chain(
    *,
    prediction_type: Prediction = "epsilon",
    set_alpha_to_one: bool = False,
    spread: float = 0.3,
    **settings: Any,
) -> ImageChain:
    """A random image chain whose LoRA is not at its initialisation (B = 0) but random with std `spread`."""
    path = pipeline_dir(prediction_type, set_alpha_to_one)
    chosen = {"steps": 4, "guidance": 2.0, "lora": LoraConfig(rank=2)} | settings
    torch.manual_seed(3)
    chain = load_image_chain(ModelConfig(path=path, **chosen), CPU)
    fill(chain, spread)
    return chain
