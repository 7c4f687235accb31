"""Devices, processes and loading: names in settings → objects on a device."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from accelerate import PartialState
from accelerate.utils import InitProcessGroupKwargs

from bench.base import devices, registry
from bench.base.errors import BenchError
from bench.data.need import needs_of
from bench.data.prompts import dcot
from bench.data.prompts.dcot import DcotConfig
from bench.data.sources import locate
from bench.engine.chain import Chain
from bench.engine.world import World
from bench.models.config import ModelConfig
from bench.models.lora_place import weights_file

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
MEETING = timedelta(hours=1)  # NCCL's own 10 minutes may be too short to load over a cold network disk
GARBAGE = (700, 10, 10)  # how often Python looks for it: a cycle of objects can hold a graph


def start(threads: int, deterministic: bool = False) -> tuple[World, torch.device]:
    """This process's place among those that share its cell (alone without any), and its device.

    deterministic: whether a GPU is to give the same bits again. Raises BenchError where a GPU is to be had,
    and torch cannot use it (`bench.base.devices`), or where it is too late for `deterministic`.
    """
    torch.set_num_threads(threads)
    gc.set_threshold(*GARBAGE)
    gpu = devices.asked() != "cpu" and torch.cuda.is_available()
    repeat_exactly(deterministic and gpu)  # before `devices.kind`, which starts CUDA
    keep_float32()
    group = InitProcessGroupKwargs(timeout=MEETING)
    state = PartialState(cpu=devices.kind() == "cpu", **group.to_kwargs())
    device = torch.device(state.device or "cpu")
    if device.type == "cpu":
        device = torch.device("cpu")  # not `cpu:0`, which loading refuses
    return World(state if state.num_processes > 1 else None), device


def keep_float32() -> None:
    """Have a GPU compute in float32 what is float32, convolutions too, which torch lets some cards round to
    TensorFloat-32: 10 bits, as many as float16 has, and another result on each kind of card."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def repeat_exactly(wanted: bool) -> None:
    """Have a GPU take the same sums in the same order each time, or as fast as it can.

    In the strict mode of torch its fused attention, its products and its indexing repeat themselves, and what
    cannot is an error. Raises BenchError if CUDA has started without what cuBLAS needs for that.
    """
    if wanted and CUBLAS not in os.environ:
        if torch.cuda.is_initialized():
            raise BenchError(
                f"train.deterministic: CUDA has started in this process without {CUBLAS}: leave out "
                f"--in-process, or set {CUBLAS}=:4096:8 in the environment"
            )
        os.environ[CUBLAS] = ":4096:8"
    torch.use_deterministic_algorithms(wanted)
    # Filling takes time, and nobody reads it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    torch.backends.cudnn.deterministic = wanted
    torch.backends.cuda.enable_cudnn_sdp(not wanted)


def load_chain(config: ModelConfig, device: torch.device) -> Chain:
    """The model's reverse chain with a fresh LoRA. Fetches hub weights that are not there yet."""
    for need in needs_of(config, "model", "model"):
        config = config.model_copy(update={need.setting.rpartition(".")[2]: locate(need)})
    return registry.load("model", config.family)(config, device)


@runtime_checkable
class LoadsLora(Protocol):
    """A chain that can take a saved adapter."""

    def load_lora(self, place: Path) -> None:
        """Replace the adapter by the one in a directory, or in a file."""
        ...


def find_lora(place: Path, option: str) -> Path:
    """The directory with the adapter, a cell's `lora/` or the one given, or its file.

    option: for messages. Raises BenchError unless exactly one adapter is there.
    """
    found = place / "lora" if (place / "lora").is_dir() else place
    try:
        weights_file(found)
    except BenchError as error:
        raise BenchError(f"{option} {error}") from error
    return found


def load_lora(chain: Chain, place: Path) -> None:
    """Give the chain a trained adapter. Raises BenchError if it takes none."""
    if not isinstance(chain, LoadsLora):
        raise BenchError(f"{place}: this kind of model loads no LoRA")
    chain.load_lora(place)


@runtime_checkable
class TakesSchedule(Protocol):
    """A chain that can condition different steps on different texts."""

    def set_schedule(self, stages: Mapping[str, Sequence[str]], stage_at: Sequence[int]) -> None:
        """The texts of every prompt, and which of them each step sees."""
        ...


def schedule_texts(chain: Chain, prompts: Iterable[str], config: DcotConfig) -> None:
    """DCoT: coarse, mid and fine steps see the prompts' decompositions. Raises BenchError."""
    if not isinstance(chain, TakesSchedule):
        raise BenchError("--dcot: this kind of model takes one text for all its steps")
    stage_at = [dcot.stage_of(i, chain.steps, config.boundaries) for i in range(chain.steps)]
    chain.set_schedule(dcot.stages(prompts, config), stage_at)
