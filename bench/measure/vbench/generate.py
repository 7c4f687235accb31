"""Videos of VBench's prompts from a model: `python -m bench vbench generate`.

A video is fixed by (seed, place of its prompt in the suite, number of the video): these key its starting
noise, whatever the subset, the part and the batch. So a run can be broken off, extended and shared out.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from bench.base.console import plain
from bench.base.media import to_bytes
from bench.engine.chain import Chain
from bench.measure.vbench import mp4
from bench.measure.vbench.record import check, record
from bench.measure.vbench.resolve import Resolved, makes_pictures, resolve
from bench.measure.vbench.suite import Video
from bench.measure.vbench.video_locks import VideoLocks
from bench.measure.vbench.videos_request import VideosRequest
from bench.run.evaluate import noise, sample_images
from bench.run.load import load_chain, load_lora, schedule_texts, start


def generate(console: Console, request: VideosRequest, *, force: bool = False, dry_run: bool = False) -> None:
    """Make the videos that are not there yet; force: all of them; dry_run: only count them.

    Raises BenchError, before the first video where that is possible.
    """
    found = resolve(request)
    found.show(console, anew=force)
    if dry_run:
        return
    same = record(found, force)
    missing = request.missing()
    if not missing:
        return
    made = 0
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("videos", total=len(missing))
        for mine, others in make(found, missing, torch.get_num_threads(), same):
            made += len(mine)
            bar.advance(task, len(mine) + len(others))
    rest = "" if made == len(missing) else f"; other processes wrote {len(missing) - made}"
    plain(console, f"wrote {made} videos to {request.videos}{rest}")


def make(
    found: Resolved, videos: Sequence[Video], threads: int, same: dict[str, Any]
) -> Generator[tuple[Sequence[Video], Sequence[Video]]]:
    """Make these videos. Yields after every batch (made here, made by other processes); both may be empty
    while this one waits for videos that others are making. No video is half made then.

    same: what `record` returned. Raises BenchError if another process has begun to make other videos there.
    """
    request = found.request
    _, device = start(threads)
    chain = load_chain(found.config, device)
    if found.adapter is not None:
        load_lora(chain, found.adapter)
    if found.dcot is not None:
        schedule_texts(chain, list(dict.fromkeys(video.prompt for video in videos)), found.dcot)
    with closing(VideoLocks(request.videos)) as locks:
        for mine, others in locks.batches(videos, request.batch):
            for video, media in _sampled(chain, mine, request.seed):
                check(request.videos, same)
                mp4.write_mp4(request.videos / video.name, frames(media, request.name), found.fps)
            yield mine, others


def _sampled(chain: Chain, videos: Sequence[Video], seed: int) -> Iterator[tuple[Video, Tensor]]:
    """Every video with its media [F, 3, H, W]."""
    if not videos:
        return
    with torch.no_grad():
        start_noise = noise(chain, seed, [(video.place, video.number) for video in videos])
        media = sample_images(chain, [video.prompt for video in videos], start_noise)
    yield from zip(videos, media, strict=True)


def frames(media: Tensor, model: str) -> mp4.Frames:
    """Media [F, 3, H, W] in [0, 1] as bytes [F, H, W, 3]. Raises BenchError for pictures [3, H, W]."""
    if media.ndim != 4:
        raise makes_pictures(model)
    return to_bytes(media).permute(0, 2, 3, 1).contiguous().numpy()
