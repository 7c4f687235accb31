"""The sixteen dimensions of VBench 0.1.5: how they are normalised, and what each one needs to run.

Ranges and weights are those of VBench's `scripts/constant.py`; files and places those of its `utils.py`.
Scores are fractions here, as VBench writes them; tables show percent. No torch in here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from bench.base.errors import BenchError, did_you_mean

ALL = "all"
USUAL, FLICKERING = 5, 25  # videos of a prompt
HUB = "https://huggingface.co"
CLIP = "https://openaipublic.azureedge.net/clip/models"
GRIT = ("detectron2", "fvcore")
CLIP_B32 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
CLIP_L14 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"


@dataclass(frozen=True)
class File:
    """A file of weights.

    path: under VBENCH_CACHE_DIR. url: where from. megabytes: of the download, where known. sha256: where
    known. unpack: the url is a zip; the folder under VBENCH_CACHE_DIR that it is unpacked into.
    """

    path: str
    url: str
    megabytes: float | None = None
    sha256: str | None = None
    unpack: str | None = None


RAFT = File(
    "raft_model/models/raft-things.pth",
    "https://dl.dropboxusercontent.com/s/4j4z58wuv8o0mfz/models.zip",
    21,
    unpack="raft_model",
)
VIT_B32 = File("clip_model/ViT-B-32.pt", f"{CLIP}/{CLIP_B32}/ViT-B-32.pt", 354, CLIP_B32)
GRIT_WEIGHTS = File(
    "grit_model/grit_b_densecap_objectdet.pth",
    "https://datarelease.blob.core.windows.net/grit/models/grit_b_densecap_objectdet.pth",
)
VICLIP = (
    File(
        "ViCLIP/ViClip-InternVid-10M-FLT.pth",
        f"{HUB}/OpenGVLab/VBench_Used_Models/resolve/main/ViClip-InternVid-10M-FLT.pth",
        1700,
    ),
    File(
        "ViCLIP/bpe_simple_vocab_16e6.txt.gz",
        "https://raw.githubusercontent.com/openai/CLIP/main/clip/bpe_simple_vocab_16e6.txt.gz",
        1.4,
    ),
)
DINO = (
    File(
        "dino_model/facebookresearch_dino_main/hubconf.py",
        "https://github.com/facebookresearch/dino/archive/refs/heads/main.zip",
        unpack="dino_model/facebookresearch_dino_main",
    ),
    File(
        "dino_model/dino_vitbase16_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
        343,
    ),
)
AESTHETIC = (
    File("clip_model/ViT-L-14.pt", f"{CLIP}/{CLIP_L14}/ViT-L-14.pt", 933, CLIP_L14),
    File(
        "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
        "https://github.com/LAION-AI/aesthetic-predictor/blob/main/sa_0_4_vit_l_14_linear.pth?raw=true",
        0.004,
    ),
)
MUSIQ = File(
    "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",
    "https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/musiq_spaq_ckpt-358bb6af.pth",
    109,
)
AMT = File("amt_model/amt-s.pth", f"{HUB}/lalala125/AMT/resolve/main/amt-s.pth", 12)
UMT = File(
    "umt_model/l16_ptk710_ftk710_ftk400_f16_res224.pth",
    f"{HUB}/OpenGVLab/VBench_Used_Models/resolve/main/l16_ptk710_ftk710_ftk400_f16_res224.pth",
    1200,
)
TAG2TEXT = File(
    "caption_model/tag2text_swin_14m.pth",
    f"{HUB}/spaces/xinyu1205/recognize-anything/resolve/main/tag2text_swin_14m.pth",
)


@dataclass(frozen=True)
class Dimension:
    """One of the sixteen.

    low, high: the raw scores that are normalised to 0 and 1. weight: in its group's mean. files, packages:
    what it needs beside VBench itself; packages by import name. limits: newest versions that it runs with,
    by distribution. custom: whether it scores videos of prompts that are not VBench's own.
    """

    name: str
    group: Literal["quality", "semantic"]
    files: tuple[File, ...] = ()
    packages: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    weight: float = 1.0
    custom: bool = True
    limits: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """The name as it is printed, for example `subject consistency`."""
        return self.name.replace("_", " ")

    @property
    def videos_per_prompt(self) -> int:
        """25 for temporal flickering, of which the static ones are scored, else 5."""
        return FLICKERING if self.name == "temporal_flickering" else USUAL

    def normalised(self, score: float) -> float:
        """The score between what VBench calls its empirical minimum and maximum; may leave [0, 1]."""
        return (score - self.low) / (self.high - self.low)


_CLIP, _TIMM = ("clip",), ("clip", "timm")
_ALL = (
    Dimension("subject_consistency", "quality", DINO, low=0.1462),
    Dimension("background_consistency", "quality", (VIT_B32,), _CLIP, low=0.2615),
    Dimension("temporal_flickering", "quality", low=0.6293),
    Dimension("motion_smoothness", "quality", (AMT,), ("omegaconf",), low=0.706, high=0.9975),
    Dimension("dynamic_degree", "quality", (RAFT,), ("easydict",), weight=0.5),
    Dimension("aesthetic_quality", "quality", AESTHETIC, _CLIP),
    Dimension("imaging_quality", "quality", (MUSIQ,), ("pyiqa",)),
    Dimension("object_class", "semantic", (GRIT_WEIGHTS,), GRIT, custom=False),
    Dimension("multiple_objects", "semantic", (GRIT_WEIGHTS,), GRIT, custom=False),
    Dimension("human_action", "semantic", (UMT,), _TIMM),
    Dimension("color", "semantic", (GRIT_WEIGHTS,), GRIT, custom=False),
    Dimension("spatial_relationship", "semantic", (GRIT_WEIGHTS,), GRIT, custom=False),
    Dimension(
        "scene",
        "semantic",
        (TAG2TEXT,),
        ("timm", "fairscale"),
        high=0.8222,
        custom=False,
        limits=(("transformers", "4.49"),),
    ),
    Dimension("appearance_style", "semantic", (VIT_B32,), _CLIP, low=0.0009, high=0.2855, custom=False),
    Dimension("temporal_style", "semantic", VICLIP, _CLIP, high=0.364),
    Dimension("overall_consistency", "semantic", VICLIP, _CLIP, high=0.364),
)
DIMENSIONS = {dimension.name: dimension for dimension in _ALL}
QUALITY = tuple(d.name for d in _ALL if d.group == "quality")
SEMANTIC = tuple(d.name for d in _ALL if d.group == "semantic")


def canonical(name: str) -> str:
    """`Subject Consistency`, `subject-consistency` → `subject_consistency`."""
    return "_".join(name.strip().lower().replace("-", " ").replace("_", " ").split())


def chosen(names: Iterable[str], custom: bool = False) -> list[Dimension]:
    """The dimensions of `--dimension` flags, with commas between names; none, or `all`: all there are.

    custom: of videos that are not of VBench's prompts. Raises BenchError for an unknown name and for one that
    refuses such videos.
    """
    asked = [canonical(part) for text in names for part in text.split(",") if part.strip()]
    for name in asked:
        if name != ALL and name not in DIMENSIONS:
            known = [ALL, *DIMENSIONS]
            hint = did_you_mean(name, known)
            raise BenchError(f"--dimension: unknown dimension '{name}'.{hint} Known: {', '.join(known)}")
    if not asked or ALL in asked:
        return [d for d in _ALL if d.custom or not custom]
    refused = [name for name in dict.fromkeys(asked) if custom and not DIMENSIONS[name].custom]
    if refused:
        able = ", ".join(d.name for d in _ALL if d.custom)
        raise BenchError(
            f"--custom: {', '.join(refused)} can only be scored on VBench's own prompts, whose objects, "
            f"colours, scenes and styles it knows. These score any video: {able}"
        )
    return [DIMENSIONS[name] for name in dict.fromkeys(asked)]
