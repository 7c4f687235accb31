"""How much of the text that a prompt puts in double quotes can be read in the picture, by rapidocr.

Source: Liu et al. 2025, "Flow-GRPO" (arXiv:2505.05470), the reward of its task of rendering text, code
yifan123/flow_grpo, flow_grpo/ocr.py. With w the wanted text and r the text that is read, both without spaces
and in lower case,

    1                                    if w is part of r
    max(1 - distance(r, w) / |w|, 0)     otherwise

where the distance is Levenshtein's. As there, w is the first quoted text of the prompt, and r is the lines
that are read, one after the other, from top to bottom and from left to right; lines that the recogniser is
less than 50 % sure of do not count, and none is turned upside down. What differs, and why:

- The networks are PP-OCRv6 (small, many languages) on ONNX Runtime, which come with the package rapidocr;
  Flow-GRPO has PaddleOCR's English ones, which are a download.
- The networks see the colours as they are. Flow-GRPO gives RGB to a function that takes it for BGR.
- Curly quotes count as quotes, too. A prompt without a quoted text is an error before anything runs; there,
  it ends the training, and behind a single quotation mark the rest of the prompt counts as quoted.
- A picture that the networks fail on ends the run; there, it scores 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, final

from bench.base.errors import BenchError
from bench.base.lazy import torch
from bench.base.strict import Strict
from bench.engine.reward import Reward
from rewards.shared.checks import check_pairs

QUOTED = re.compile(r'["“”„]([^"“”„]*)["“”]')
MODELS = {"Det": "PP-OCRv6_det_small.onnx", "Rec": "PP-OCRv6_rec_small.onnx"}
SURE = 0.5  # a line's least probability, PaddleOCR's `drop_score`


class OcrConfig(Strict):
    """The reward has no settings."""

    packages: ClassVar[tuple[str, ...]] = ("rapidocr", "onnxruntime")
    install: ClassVar[str] = "pip install 'rapidocr>=3.10,<3.11' 'onnxruntime>=1.20'"

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise BenchError for the first prompt without a quoted text."""
        for prompt in prompts:
            wanted_text(prompt)


@final
class OcrReward(Reward):
    """The share of the wanted text that can be read. The reader has no gradient."""

    name: ClassVar[str] = "ocr"
    parameters: ClassVar[int] = 7_800_000
    Config: ClassVar[type[Strict]] = OcrConfig
    differentiable: ClassVar[bool] = False
    scale: ClassVar[str] = "share of the quoted text that can be read in the picture, 0 … 1"

    def __init__(self, config: OcrConfig, device: torch.device) -> None:
        """Loads the networks on the CPU, with as many threads as torch has. Raises BenchError."""
        self.device, self.reader = device, _reader(torch.get_num_threads())

    def score(self, media: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Shares [B] of images [B, 3, H, W] in [0, 1], nan where one is not finite. Raises BenchError for a
        prompt without a quoted text."""
        check_pairs(media, prompts, "ocr")
        wanted = [wanted_text(prompt) for prompt in prompts]
        finite = torch.isfinite(media).flatten(1).all(dim=1).tolist()
        found = [
            share(self.text(image), text) if ok else float("nan")
            for image, text, ok in zip(media, wanted, finite, strict=True)
        ]
        return torch.tensor(found, device=self.device)

    def text(self, image: torch.Tensor) -> str:
        """All that can be read in an image [3, H, W] in [0, 1], line after line without anything between."""
        from bench.base.media import to_pil

        return "".join(self.reader(to_pil(image)).txts or ())


def wanted_text(prompt: str) -> str:
    """The first text in double quotes, straight or curly. Raises BenchError if there is none."""
    found = QUOTED.search(prompt)
    if found is None or not _letters(found[1]):
        raise BenchError(
            f"reward ocr: the prompt {prompt!r} has no text in double quotes to look for in the picture. "
            'Prompts that have one look like this: a sign that says "OPEN"; --prompts signs is a set of such'
        )
    return found[1]


def share(read: str, wanted: str) -> float:
    """How much of the wanted text was read, 0 … 1, whatever the spaces and capitals."""
    read, wanted = _letters(read), _letters(wanted)
    if wanted in read:
        return 1.0
    return max(1 - distance(read, wanted) / len(wanted), 0.0)


def distance(first: str, second: str) -> int:
    """Levenshtein's: how many letters have to be put in, left out or replaced to make one of the other."""
    above = list(range(len(second) + 1))
    for row, a in enumerate(first, start=1):
        here = [row]
        for column, b in enumerate(second, start=1):
            here.append(min(above[column] + 1, here[-1] + 1, above[column - 1] + (a != b)))
        above = here
    return above[-1]


def _letters(text: str) -> str:
    return "".join(text.split()).lower()


def _reader(threads: int) -> Any:
    """rapidocr on the networks of its wheel; paths are given, so it fetches nothing."""
    try:
        rapidocr, _ = map(import_module, OcrConfig.packages)  # it imports the other one when it first reads
    except ImportError as error:
        names = " and ".join(OcrConfig.packages)
        raise BenchError(
            f"reward ocr: needs the packages {names} ({error}). Install:\n  {OcrConfig.install}"
        ) from error
    files = {part: Path(str(rapidocr.__file__)).parent / "models" / name for part, name in MODELS.items()}
    if missing := [file for file in files.values() if not file.is_file()]:
        raise BenchError(
            f"reward ocr: {missing[0]} is not there: this rapidocr brings other networks, and scores of the "
            f"two could not be compared. Install:\n  {OcrConfig.install}"
        )
    return rapidocr.RapidOCR(
        params={
            **{f"{part}.model_path": str(file) for part, file in files.items()},
            "Global.use_cls": False,
            "Global.text_score": SURE,
            "Det.limit_type": "max",  # as PaddleOCR: pictures above 960 pixels are made smaller, none larger
            "Det.limit_side_len": 960,
            "Global.log_level": "error",  # or it warns of every picture without text
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
