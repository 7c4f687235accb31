"""Whether objects are in a picture, or are not, by a YOLOS detector of the classes of COCO.

Sources: Fang et al. 2021, "You Only Look at One Sequence" (arXiv:2106.00666), checkpoint hustvl/yolos-base;
Prabhudesai et al. 2024, VADER (arXiv:2407.08737), which removes objects from videos. With p the detector's
class probabilities of its 100 boxes, the confidence c that an object is there is

    over: max     the largest p of a wanted class, over all boxes
    over: mean    the mean p of the boxes whose most probable class is a wanted one, with p > threshold,
                  and 0 without any

and the score is 1 - c (`present: false`) or c. VADER's reward is 1 - c with `over: mean`, one object and a
threshold of 0.2; it has no gradient where nothing is found, and jumps where a box comes or goes, so `max` is
the default. How the rest differs from the authors' code: it sums c over frames, but starts again from 0 at
each frame without the object; its pictures are resized without antialiasing; Grounding DINO is not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, final

from pydantic import Field

from bench.base.lazy import torch
from bench.base.strict import Strict
from rewards.shared.checkpoint import random_model, read_model
from rewards.shared.checkpoint_reward import CheckpointReward, NetworkConfig
from rewards.shared.labels import label_number
from rewards.shared.passes import HalfPass
from rewards.shared.yolos_image import DetectorImages

SOURCE = "hub:hustvl/yolos-base"
RANDOM = "random:YOLOS-B"
CLASSES = 91  # of COCO, with the numbers that it leaves out


class ObjectsConfig(NetworkConfig):
    """Which objects, and where the detector is."""

    random_source: ClassVar[str] = RANDOM
    random_sources: ClassVar[tuple[str, ...]] = (RANDOM,)
    gigabytes: ClassVar[Mapping[str, float]] = {SOURCE: 0.51, "hub:hustvl/yolos-small": 0.12}

    objects: tuple[str, ...] = Field(
        default=("book",), min_length=1, description="COCO's names of what is looked for"
    )
    present: bool = Field(default=False, description="true: they should be there; false: they should not")
    over: Literal["max", "mean"] = Field(
        default="max", description="max: the surest box counts; mean: the mean of those found, as in VADER"
    )
    threshold: float = Field(default=0.2, ge=0, le=1, description="of `over: mean`")
    size: int | None = Field(
        default=512, ge=16, description="pixels of the shorter side, VADER's; null: as the processor says"
    )
    source: str = Field(default=SOURCE, description=f"`hub:org/name`, `path:directory` or `{RANDOM}`")


@final
class ObjectsReward(CheckpointReward):
    """1 - confidence that objects are there, or the confidence. Differentiable in the image; the model is
    frozen."""

    name: ClassVar[str] = "objects"
    parameters: ClassVar[int] = 127_798_368
    Config: ClassVar[type[Strict]] = ObjectsConfig
    scale: ClassVar[str] = "probability that the objects are not (or are) in the picture, 0 … 1"

    def __init__(self, config: ObjectsConfig, device: torch.device) -> None:
        """Loads the detector, downloading it if need be. Raises BenchError."""
        super().__init__(config, device)
        if config.size is not None:
            self.images = replace(self.images, shortest=config.size)
        labels: dict[str, int] = self.model.config.label2id
        self.classes = [label_number(labels, o, config.random, "objects.objects") for o in config.objects]

    def _random(self) -> Any:
        from transformers import YolosConfig, YolosForObjectDetection

        config: Any = YolosConfig(image_size=[800, 1344])
        config.num_labels = CLASSES
        self.images = DetectorImages()
        return random_model(lambda: YolosForObjectDetection(config), RANDOM)

    def _read(self, *places: Path) -> Any:
        from transformers import YolosForObjectDetection

        model = read_model(YolosForObjectDetection, places[0], "objects", "YOLOS", self.dtype)
        self.images = DetectorImages.load(places[0])
        return model

    def _scores(self, media: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        logits = self._in_chunks(self._logits, media)
        found = self._confidence(logits.softmax(dim=-1)[..., :-1])  # the last class is "nothing"
        return found if self.config.present else 1 - found

    def _logits(self, media: torch.Tensor) -> torch.Tensor:
        half = HalfPass(self.model.dtype)
        return half.leave(self.model(pixel_values=half.enter(self.images(media))).logits)

    def _confidence(self, p: torch.Tensor) -> torch.Tensor:
        """[B] from p [B, boxes, classes]."""
        if self.config.over == "max":
            return p[..., self.classes].amax(dim=(1, 2))
        best, which = p.max(dim=-1)
        wanted = torch.isin(which, torch.tensor(self.classes, device=p.device))
        counted = (wanted & (best > self.config.threshold)).to(best.dtype)
        return (best * counted).sum(dim=1) / counted.sum(dim=1).clamp_min(1)
