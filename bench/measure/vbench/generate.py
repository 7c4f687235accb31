"""Videos of VBench's prompts from a model: `python -m bench vbench generate`.

A video is fixed by (seed, place of its prompt in the suite, number of the video): these key its starting
noise, whatever the subset, the shard and the batch. So a run can be broken off, extended and shared out.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from bench.base.errors import BenchError
from bench.base.layers import parse_setting
from bench.base.media import to_bytes
from bench.data.prompts.dcot import DcotConfig
from bench.engine.chain import Chain
from bench.experiment.combinations import Layer
from bench.measure.vbench import mp4, suite
from bench.measure.vbench.dimensions import Dimension
from bench.measure.vbench.record import check, record
from bench.measure.vbench.suite import Video
from bench.measure.vbench.turns import Turns
from bench.models.config import ModelConfig
from bench.run.evaluate import noise, sample_images
from bench.run.load import find_lora, load_chain, load_lora, schedule_texts, start
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
    mp4.encoder()
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


def generate(console: Console, asked: Asked) -> None:
    """Make the videos that are not there yet. Raises BenchError, before the first where that is possible."""
    found = order(asked)
    found.show(console)
    if asked.dry_run:
        return
    same = record(found)
    missing = found.missing()
    if not missing:
        return
    made = 0
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("videos", total=len(missing))
        for mine, others in make(found, missing, torch.get_num_threads(), same):
            made += len(mine)
            bar.advance(task, len(mine) + len(others))
    rest = "" if made == len(missing) else f"; other processes wrote {len(missing) - made}"
    console.print(f"wrote {made} videos to {found.out}{rest}", highlight=False, soft_wrap=True)


def make(
    found: Order, videos: Sequence[Video], threads: int, same: dict[str, Any]
) -> Generator[tuple[Sequence[Video], Sequence[Video]]]:
    """Make these videos. Yields after every batch (made here, made by other processes); both may be empty
    while this one waits for videos that others are making. No video is half made then.

    same: what `record` returned. Raises BenchError if another process has begun to make other videos there.
    """
    asked = found.asked
    _, device = start(threads)
    chain = load_chain(found.config, device)
    if found.adapter is not None:
        load_lora(chain, found.adapter)
    if found.dcot is not None:
        schedule_texts(chain, list(dict.fromkeys(video.prompt for video in videos)), found.dcot)
    with Turns(found.out) as turns:
        for mine, others in turns.rounds(videos, asked.batch):
            for video, media in _sampled(chain, mine, asked.seed):
                check(found.out, same)
                mp4.write_mp4(found.out / video.name, frames(media, found.name), found.fps)
            yield mine, others


def _sampled(chain: Chain, videos: Sequence[Video], seed: int) -> Iterator[tuple[Video, Tensor]]:
    """Every video with its media [F, 3, H, W]."""
    if not videos:
        return
    with torch.no_grad():
        start_noise = noise(chain, seed, [(video.place, video.number) for video in videos])
        media = sample_images(chain, [video.prompt for video in videos], start_noise)
    yield from zip(videos, media, strict=True)


def frames(media: Tensor, name: str) -> mp4.Frames:
    """Media [F, 3, H, W] in [0, 1] as bytes [F, H, W, 3]. Raises BenchError for pictures [3, H, W]."""
    if media.ndim != 4:
        raise _pictures(name)
    return to_bytes(media).permute(0, 2, 3, 1).contiguous().numpy()


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
