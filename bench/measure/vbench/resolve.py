"""A request for videos with everything that it names looked up: model, adapter, decomposition, frame rate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.base.console import plain
from bench.base.errors import BenchError
from bench.data.prompts.dcot import DcotConfig
from bench.experiment.overrides import typed
from bench.measure.vbench import mp4, suite
from bench.measure.vbench.dimensions import DIMENSIONS, Dimension
from bench.measure.vbench.videos_request import VideosRequest
from bench.models.config import ModelConfig
from bench.run.load import find_lora
from bench.run.sample import trained_dcot, trained_model
from bench.run.store import CellDir

# Frames per second that VBench's authors sampled these models with, and all others: their
# sampled_videos/README.md.
FPS = {"videocrafter2": 10.0, "t2v-turbo": 16.0}
USUAL_FPS = 8.0


def request(
    dimensions: Iterable[Dimension],
    model: str | None = None,
    lora: Path | None = None,
    *,
    out: Path | None = None,
    shard: str | None = None,
    settings: Iterable[str] = (),
    **options: Any,
) -> VideosRequest:
    """What the command's options ask for.

    out: None for results/vbench/<model>/videos. shard: K/N. options: further fields of the request. Raises
    BenchError.
    """
    settings = tuple(settings)
    _, name, _ = _looked_up(model, lora, settings)
    chosen = {dimension.name for dimension in dimensions}
    part, parts = suite.shard(shard)
    return VideosRequest(
        videos=out or Path("results/vbench") / directory_name(name, lora) / "videos",
        model=model,
        name=name,
        lora=lora,
        settings=settings,
        dimensions=tuple(known for known in DIMENSIONS if known in chosen),
        part=part,
        parts=parts,
        **options,
    )


@dataclass(frozen=True)
class Resolved:
    """A request, and what it names. adapter: the directory with the LoRA."""

    request: VideosRequest
    config: ModelConfig
    adapter: Path | None
    dcot: DcotConfig | None
    fps: float

    def show(self, console: Console, anew: bool = False) -> None:
        """Print how many videos there are. anew: those that are there do not count."""
        request, wanted, mine = self.request, self.request.selection(), self.request.listed()
        prompts = len({video.prompt for video in wanted})
        part = "" if request.parts == 1 else f", part {request.part}/{request.parts}: {len(mine)}"
        there = 0 if anew else len(mine) - len(request.missing())
        plain(
            console,
            f"{len(wanted)} videos of {prompts} prompts{part}; {there} are there already. "
            f"{request.name}, {self.fps:g} frames per second → {request.videos}",
        )


def resolve(request: VideosRequest) -> Resolved:
    """Look up what a request names. Raises BenchError, also if there is nothing to write videos with."""
    mp4.require_encoder()
    adapter, name, config = _looked_up(request.model, request.lora, request.settings)
    if config.frames is None:
        raise makes_pictures(name)
    fps = frame_rate(name) if request.fps is None else request.fps
    return Resolved(request, config, adapter, trained_dcot(request.lora), fps)


def _looked_up(
    model: str | None, lora: Path | None, settings: Iterable[str]
) -> tuple[Path | None, str, ModelConfig]:
    """The adapter's directory, and the model's name and settings."""
    adapter = None if lora is None else _adapter(lora)
    return adapter, *trained_model(model, lora, typed(settings))


def _adapter(lora: Path) -> Path:
    """The directory with the LoRA. Raises BenchError, also for a cell of a method that trains nothing."""
    training = CellDir(lora).config().training if (lora / "config.yaml").is_file() else None
    if training is not None and training.train.steps == 0:
        raise BenchError(
            f"--lora {lora}: {training.method.name} trains nothing: it chooses the noise of each video, "
            "which this command does not do. It has no VBench score here (docs/inference.md)"
        )
    return find_lora(lora, "--lora")


def makes_pictures(name: str) -> BenchError:
    """What to say of a model that makes no videos."""
    return BenchError(
        f"model '{name}' makes pictures, not videos: VBench scores videos. Choose a video model"
    )


def frame_rate(name: str) -> float:
    """What VBench's authors used for this model, else 8. `model.fps` is another number: what VideoCrafter2's
    UNet is told. Scores depend on the file's rate: dynamic_degree looks at every round(fps / 8)-th frame.
    """
    return next((fps for known, fps in FPS.items() if name.lower().startswith(known)), USUAL_FPS)


def directory_name(model: str, lora: Path | None) -> str:
    """`videocrafter2`, or with the cell's name for a trained one."""
    text = model if lora is None else f"{model}-{lora.resolve().name}"
    return "".join(c if c.isalnum() or c in "-_.=" else "_" for c in text)
