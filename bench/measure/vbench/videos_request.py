"""Videos of VBench's prompts that are asked for: the options of `vbench generate`, and its jobs' config.yaml.

No torch here.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from bench.base.strict import Strict
from bench.measure.vbench import suite
from bench.measure.vbench.dimensions import DIMENSIONS
from bench.measure.vbench.suite import Video

NAMED = 2  # dimensions that stand in a job's name


class VideosRequest(Strict):
    """Every `parts`-th video of a selection, from the `part`-th on; `work` stands first in config.yaml.

    videos: the directory for them. model: as it was typed, since videos.json names it so; None for the one
    that the LoRA was trained on. name: that model's. lora: a cell, or a directory with an adapter. settings:
    model.KEY=VALUE. subset: prompts of each dimension. per_prompt: videos of each prompt. batch: videos at a
    time. fps: None for the model's. Paths of a job are absolute, as it may be sent again from elsewhere.
    """

    work: Literal["vbench generate"] = "vbench generate"
    threads: int = 1
    videos: Path
    model: str | None = None
    name: str
    lora: Path | None = None
    settings: tuple[str, ...] = ()
    dimensions: tuple[str, ...]
    subset: int | None = None
    per_prompt: int | None = None
    seed: int = 0
    batch: int = 1
    fps: float | None = None
    part: int = 1
    parts: int = 1

    @property
    def id(self) -> str:
        """`scene-2of8`: the same whenever the same is asked for."""
        return f"{self.label}-{self.part:0{len(str(self.parts))}d}of{self.parts}"

    @property
    def label(self) -> str:
        """`all`, `scene`, `color+scene`, `4dimensions-a1b2c3`, with what limits them: `scene-subset3`."""
        count, joined = len(self.dimensions), "+".join(self.dimensions)
        digest = hashlib.sha256(joined.encode()).hexdigest()[:6]
        text = joined if count <= NAMED else f"{count}dimensions-{digest}"
        text = "all" if count == len(DIMENSIONS) else text
        text += "" if self.subset is None else f"-subset{self.subset}"
        return text + ("" if self.per_prompt is None else f"-each{self.per_prompt}")

    def absolute(self) -> VideosRequest:
        """The same with absolute paths."""
        lora = self.lora and self.lora.absolute()
        return self.model_copy(update={"videos": self.videos.absolute(), "lora": lora})

    def selection(self) -> list[Video]:
        """The videos of all parts."""
        return suite.videos([DIMENSIONS[name] for name in self.dimensions], self.subset, self.per_prompt)

    def listed(self) -> list[Video]:
        """The videos of this part."""
        return self.selection()[self.part - 1 :: self.parts]

    def missing(self) -> list[Video]:
        """Those of this part that are not there, whoever was to make them."""
        return [video for video in self.listed() if not suite.complete(self.videos / video.name)]
