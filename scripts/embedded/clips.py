"""Measure the exported video model, and show it: filmstrips, and a GIF."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import TextToVideoSDPipeline
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bench.data.prompts.emoji import STYLES, prompt
from bench.data.prompts.emoji_motion import FRAMES, MOTIONS, clip_combinations, clip_prompt
from rewards.motion import MotionConfig, MotionReward
from scripts.embedded.compose import BACKGROUND_NAMES, load_library
from scripts.embedded.evaluate import STEPS, Judge
from scripts.embedded.video import show_clip

GUIDANCES = (1.0, 4.0)
PER_SPLIT = 48
SHOWN: tuple[str, ...] = (
    "a fox moving left on a blue background",
    "a red apple moving right on a white background",
    "a rocket moving up on a black background",
    "a carrot moving down on a pink background",
    "a sunflower growing on a purple background",
    "a ghost shrinking on a gray background",
    "a tiger face turning left on a green background",
    "a doughnut turning right on a yellow background",
)


def load_video_pipeline(directory: Path) -> TextToVideoSDPipeline:
    """Read a pipeline directory; computes in float32, silently."""
    pipeline = TextToVideoSDPipeline.from_pretrained(directory, local_files_only=True)
    for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
        part.float()
    pipeline.unet.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def sample_clips(
    pipeline: TextToVideoSDPipeline, texts: Sequence[str], guidance: float, seed: int = 0, steps: int = STEPS
) -> Tensor:
    """DDIM samples (η = 0) in [0, 1], [B, FRAMES, 3, 64, 64]; the k-th noise depends on seed and k only."""
    out = []
    for start in range(0, len(texts), 16):
        chunk = list(texts[start : start + 16])
        rngs = [torch.Generator().manual_seed(seed * 100_003 + start + k) for k in range(len(chunk))]
        settings: dict[str, Any] = {"generator": rngs, "output_type": "pt", "return_dict": False}
        size = {"num_frames": FRAMES, "height": 64, "width": 64}
        result = pipeline(chunk, num_inference_steps=steps, guidance_scale=guidance, **size, **settings)
        out.append(torch.as_tensor(result[0]).clamp(0, 1))
    return torch.cat(out)


def judge_clips(judge: Judge, wanted: Sequence[tuple[str, str, str]], clips: Tensor) -> dict[str, float]:
    """Rewards of clips in [0, 1], how often the motion reward picks the prompt's motion, and steadiness.

    kind: of motion, whatever its direction: to the side, up or down, in size, in turn. unsteadiness: root
    mean square of a frame's difference to the mean of its neighbours, in grey levels.
    """
    motion = MotionReward(MotionConfig(), torch.device("cpu"))
    texts = [clip_prompt(*combination) for combination in wanted]
    still = [prompt(name, background) for name, background, _ in wanted]
    frames = [judge.scores(clips[:, f] * 2 - 1, texts) for f in range(clips.shape[1])]
    plain = [judge.scores(clips[:, f] * 2 - 1, still) for f in range(clips.shape[1])]
    choices = torch.stack([motion.score(clips, [words] * len(clips)) for words in MOTIONS])
    right = torch.tensor([list(MOTIONS).index(m) for _, _, m in wanted])
    second = clips[:, 1:-1] - (clips[:, :-2] + clips[:, 2:]) / 2
    return {
        "clip": float(torch.stack(frames).mean()),
        "clip, prompt without its motion": float(torch.stack(plain).mean()),
        "motion": float(motion.score(clips, texts).mean()),
        "kind of motion @1 of 4": float((kinds(motion.motion(clips)) == right // 2).float().mean()),
        "motion @1 of 8": float((choices.argmax(dim=0) == right).float().mean()),
        "unsteadiness": float(second.pow(2).mean().sqrt() * 255),
    }


def kinds(motions: Tensor) -> Tensor:
    """Which of the four numbers of `MotionReward.motion` is the largest in size, [B]."""
    return motions.abs().argmax(dim=1)


def real_clips(work: Path, wanted: Sequence[tuple[str, str, str]], seed: int = 0) -> Tensor:
    """Composed clips in [0, 1] of combinations, in one style after the other."""
    library, _ = load_library(work)
    index = {(row.name, row.style): i for i, row in enumerate(library.rows)}
    rng = np.random.default_rng(seed)
    clips = [
        show_clip(
            library.pictures[index[name, STYLES[k % 3]]], BACKGROUND_NAMES.index(background), motion, rng
        )
        for k, (name, background, motion) in enumerate(wanted)
    ]
    return torch.stack(clips) / 2 + 0.5


def evaluate_video(work: Path, weights: Path, log: Callable[[str], None] = print) -> Path:
    """Measure the model in `weights/video`; writes and logs `work/evaluation-video.json`."""
    pipeline, judge = load_video_pipeline(weights / "video"), Judge.load(weights / "clip")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for split in ("train", "held-out"):
        wanted = clip_combinations(heldout=split == "held-out")[:PER_SPLIT]
        texts = [clip_prompt(*combination) for combination in wanted]
        found[split] = {"real": judge_clips(judge, wanted, real_clips(work, wanted))}
        for guidance in GUIDANCES:
            clips = sample_clips(pipeline, texts, guidance)
            found[split][f"guidance {guidance:g}"] = judge_clips(judge, wanted, clips)
    text = json.dumps(found, indent=1)
    log(text)
    target = work / "evaluation-video.json"
    target.write_text(text + "\n")
    return target


def draw_strips(clips: Tensor, labels: Sequence[str], scale: int = 2) -> Image.Image:
    """One filmstrip per row with its label above; clips in [0, 1], [B, F, 3, H, W]."""
    count, frames, _, height, width = clips.shape
    font, gap, head = ImageFont.load_default(13), 4, 22
    wide, high = (width * scale + gap) * frames + gap, height * scale + head + gap
    sheet = Image.new("RGB", (wide, high * count), "white")
    draw = ImageDraw.Draw(sheet)
    pixels = (clips * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()
    for row, (strip, label) in enumerate(zip(pixels, labels, strict=True)):
        draw.text((gap, row * high + 4), label, fill=(40, 40, 40), font=font)
        for f, frame in enumerate(strip):
            image = Image.fromarray(frame).resize((width * scale, height * scale), Image.Resampling.BICUBIC)
            sheet.paste(image, (gap + f * (width * scale + gap), row * high + head))
    return sheet


def make_strips(weights: Path, target: Path) -> list[Path]:
    """Sample the model in `weights/video` at guidance 4 and write the strips as PNG, the clips as GIF."""
    pipeline = load_video_pipeline(weights / "video")
    clips = sample_clips(pipeline, SHOWN, 4.0)
    target.parent.mkdir(parents=True, exist_ok=True)
    draw_strips(clips, SHOWN).save(target)
    moving = [draw_strips(clips[:, f : f + 1], [""] * len(SHOWN)) for f in range(FRAMES)]
    gif = target.with_suffix(".gif")
    moving[0].save(gif, save_all=True, append_images=moving[1:], duration=125, loop=0)
    return [target, gif]
