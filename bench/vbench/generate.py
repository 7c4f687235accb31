"""Videos of VBench's prompts from a model: `python -m bench vbench generate`.

A video is fixed by (seed, place of its prompt in the suite, number of the video): these key its starting
noise, whatever the subset, the shard and the batch. So a run can be broken off, extended and shared out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from bench.chain import Chain
from bench.config import parse_setting
from bench.errors import BenchError
from bench.evaluate import noise, sample_images
from bench.media import to_bytes
from bench.models.config import ModelConfig
from bench.parts import Layer
from bench.runtime import find_lora, load_chain, load_lora, schedule_texts, start
from bench.sample import trained_dcot, trained_model
from bench.store import write_atomically
from bench.vbench import mp4, suite
from bench.vbench.dimensions import Dimension
from bench.vbench.suite import Video

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


def generate(console: Console, asked: Asked) -> None:
    """Make the videos that are not there yet. Raises BenchError, before the first where that is possible."""
    mp4.encoder()
    adapter = None if asked.lora is None else find_lora(asked.lora, "--lora")
    layers = [Layer(*parse_setting(text)) for text in asked.settings]
    name, config = trained_model(asked.model, asked.lora, layers)
    out = asked.out or Path("results/vbench") / directory_name(name, asked.lora) / "videos"
    fps = frame_rate(name, config) if asked.fps is None else asked.fps
    wanted = suite.videos(asked.dimensions, asked.subset, asked.per_prompt)
    mine = suite.shard(wanted, asked.shard)
    missing = [video for video in mine if asked.force or not complete(out / video.name)]
    prompts = len({video.prompt for video in wanted})
    part = "" if asked.shard is None else f", part {asked.shard}: {len(mine)}"
    text = f"{len(wanted)} videos of {prompts} prompts{part}; {len(mine) - len(missing)} are there already"
    console.print(f"{text}. {name}, {fps:g} frames per second → {out}", highlight=False)
    if asked.dry_run:
        return
    _record(out, _identity(name, config, adapter, asked.seed, fps), asked.force)
    if not missing:
        return
    _, device = start(threads=torch.get_num_threads())
    chain = load_chain(config, device)
    if adapter is not None:
        load_lora(chain, adapter)
    own = trained_dcot(asked.lora)
    if own is not None:
        schedule_texts(chain, list(dict.fromkeys(video.prompt for video in missing)), own)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("videos", total=len(missing))
        for video, media in _sampled(chain, missing, asked):
            mp4.write_mp4(out / video.name, frames(media, name), fps)
            bar.advance(task)
    console.print(f"wrote {len(missing)} videos to {out}", highlight=False)


def _sampled(chain: Chain, videos: Sequence[Video], asked: Asked) -> Iterator[tuple[Video, Tensor]]:
    """Every video with its media [F, 3, H, W]."""
    with torch.no_grad():
        for first in range(0, len(videos), asked.batch):
            part = videos[first : first + asked.batch]
            start_noise = noise(chain, asked.seed, [(video.place, video.number) for video in part])
            media = sample_images(chain, [video.prompt for video in part], start_noise)
            yield from zip(part, media, strict=True)


def frames(media: Tensor, name: str) -> mp4.Frames:
    """Media [F, 3, H, W] in [0, 1] as bytes [F, H, W, 3]. Raises BenchError for pictures [3, H, W]."""
    if media.ndim != 4:
        raise BenchError(
            f"model '{name}' makes pictures, not videos: VBench scores videos. Choose a video model"
        )
    return to_bytes(media).permute(0, 2, 3, 1).contiguous().numpy()


def complete(path: Path) -> bool:
    """Whether a video is there. They are moved into place when they are finished, so there is no half one."""
    return path.is_file() and path.stat().st_size > 0


def frame_rate(name: str, config: ModelConfig) -> float:
    """What the model's settings say, else what VBench's authors used for it, else 8."""
    own = getattr(config, "fps", None)
    if isinstance(own, int | float) and own > 0:
        return float(own)
    return next((fps for known, fps in FPS.items() if name.lower().startswith(known)), USUAL_FPS)


def directory_name(model: str, lora: Path | None) -> str:
    """`videocrafter2`, or with the cell's name for a trained one."""
    text = model if lora is None else f"{model}-{lora.resolve().name}"
    return "".join(c if c.isalnum() or c in "-_.=" else "_" for c in text)


def _identity(name: str, config: ModelConfig, adapter: Path | None, seed: int, fps: float) -> dict[str, Any]:
    """What makes two runs' videos the same: everything but which of them were asked for."""
    digest = hashlib.sha256()
    for file in sorted(adapter.glob("*.safetensors")) if adapter is not None else ():
        digest.update(file.read_bytes())
    return {
        "model": name,
        "settings": config.model_dump(mode="json"),
        "lora": None if adapter is None else str(adapter),
        "lora_sha256": None if adapter is None else digest.hexdigest(),
        "seed": seed,
        "fps": fps,
    }


def _record(out: Path, identity: dict[str, Any], force: bool) -> None:
    """Write what the videos are made with beside their directory; refuse to mix two kinds in one."""
    path = out.with_name(out.name + ".json")
    if path.is_file() and not force:
        before = json.loads(path.read_text(encoding="utf-8"))
        keys = [k for k in identity if k != "lora" and (k not in before or before[k] != identity[k])]
        if keys:
            raise BenchError(
                f"{out} holds videos made with another {', '.join(keys)} ({path.name} says which): choose "
                "another --out, or make them again with --force"
            )
    write_atomically(path, json.dumps(identity, indent=2, ensure_ascii=False) + "\n")
