"""An order of videos: what is to be made, resolved from what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench.base.errors import BenchError
from bench.base.layers import parse_setting
from bench.data.prompts.dcot import DcotConfig
from bench.experiment.model_files import Layer
from bench.measure.vbench import mp4, suite
from bench.measure.vbench.dimensions import Dimension
from bench.measure.vbench.suite import Video
from bench.models.config import ModelConfig
from bench.run.load import find_lora
from bench.run.sample import trained_dcot, trained_model
from bench.run.store import CellDir

# Frames per second that VBench's authors sampled these models with (their sampled_videos/README.md).
FPS = {
    "modelscope": 8.0,
    "animatediff": 8.0,
    "lavie": 8.0,
    "show-1": 8.0,
    "videocrafter2": 10.0,
    "t2v-turbo": 16.0,
}


USUAL_FPS = 8.0


@dataclass(frozen=True)
class Asked:
    """The command's options, as typed. out: None for results/vbench/<model>/videos."""

    dimensions: Sequence[Dimension]
    model: str | None = None
    lora: Path | None = None
    out: Path | None = None
    subset: int | None = None
    per_prompt: int | None = None
    shard: str | None = None
    seed: int = 0
    batch: int = 1
    fps: float | None = None
    settings: Sequence[str] = ()
    force: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Order:
    """What was asked for, looked up. wanted: all videos; mine: those of the shard."""

    asked: Asked
    name: str
    config: ModelConfig
    adapter: Path | None
    dcot: DcotConfig | None
    out: Path
    fps: float
    wanted: list[Video]
    mine: list[Video]

    def missing(self) -> list[Video]:
        """The shard's videos that are not there yet."""
        return [video for video in self.mine if self.asked.force or not suite.complete(self.out / video.name)]

    def show(self, console: Console) -> None:
        """How many there are and are missing."""
        prompts = len({video.prompt for video in self.wanted})
        part = "" if self.asked.shard is None else f", part {self.asked.shard}: {len(self.mine)}"
        there = len(self.mine) - len(self.missing())
        text = f"{len(self.wanted)} videos of {prompts} prompts{part}; {there} are there already"
        console.print(
            f"{text}. {self.name}, {self.fps:g} frames per second → {self.out}",
            highlight=False,
            soft_wrap=True,
        )


def order(asked: Asked) -> Order:
    """Look up what was asked for. Raises BenchError."""
    mp4.require_encoder()
    adapter = None if asked.lora is None else _adapter(asked.lora)
    layers = [Layer(*parse_setting(text)) for text in asked.settings]
    name, config = trained_model(asked.model, asked.lora, layers)
    if config.frames is None:
        raise _pictures(name)
    out = asked.out or Path("results/vbench") / directory_name(name, asked.lora) / "videos"
    fps = frame_rate(name) if asked.fps is None else asked.fps
    wanted = suite.videos(asked.dimensions, asked.subset, asked.per_prompt)
    mine = suite.shard(wanted, asked.shard)
    return Order(asked, name, config, adapter, trained_dcot(asked.lora), out, fps, wanted, mine)


def _adapter(lora: Path) -> Path:
    """The directory with the LoRA. Raises BenchError, also for a cell of a method that trains nothing."""
    training = CellDir(lora).config().training if (lora / "config.yaml").is_file() else None
    if training is not None and training.train.steps == 0:
        raise BenchError(
            f"--lora {lora}: {training.method.name} trains nothing: it chooses the noise of each video, "
            "which this command does not do. It has no VBench score here (docs/inference.md)"
        )
    return find_lora(lora, "--lora")


def _pictures(name: str) -> BenchError:
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
