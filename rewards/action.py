"""Whether a video shows a named action, by a VideoMAE classifier of the 400 actions of Kinetics.

Sources: Tong et al. 2022, "VideoMAE" (arXiv:2203.12602), checkpoint
MCG-NJU/videomae-base-finetuned-kinetics; Prabhudesai et al. 2024, VADER (arXiv:2407.08737), code
mihirp1998/VADER, Core/actpred_scorer.py. The score is log p(action | video), so the negative of VADER's loss,
which is the classifier's cross-entropy; the score that its code logs is p itself. How the rest differs from
the authors' code: frames are brought to the number that the checkpoint was trained with (theirs builds the
model for as many as were generated), and pictures follow the checkpoint's processor, shorter side → 224 and
centre crop (theirs squeezes them to 224 × 224).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

from pydantic import Field

from bench.base.errors import BenchError
from bench.base.lazy import torch
from bench.base.strict import Strict
from bench.engine.reward import Media
from rewards.shared.checkpoint import random_model, read_model
from rewards.shared.checkpoint_reward import CheckpointReward, NetworkConfig
from rewards.shared.clip_image import Preprocessor
from rewards.shared.frames import VIDEOMAE, prepared, with_frames
from rewards.shared.labels import label_number
from rewards.shared.passes import HalfPass

SOURCE = "hub:MCG-NJU/videomae-base-finetuned-kinetics"
RANDOM = "random:VideoMAE-B"
ACTIONS = 400  # of Kinetics


class ActionConfig(NetworkConfig):
    """Which action, and where the classifier is."""

    random_source: ClassVar[str] = RANDOM
    random_sources: ClassVar[tuple[str, ...]] = (RANDOM,)
    gigabytes: ClassVar[Mapping[str, float]] = {SOURCE: 0.35}

    action: str | None = Field(
        default=None,
        description="a label of the classifier, such as `playing guitar`; null: the longest that is part of "
        "the prompt",
    )
    source: str = Field(default=SOURCE, description=f"`hub:org/name`, `path:directory` or `{RANDOM}`")


@final
class ActionReward(CheckpointReward):
    """log p(action | video). Differentiable in the video; the model is frozen."""

    name: ClassVar[str] = "action"
    parameters: ClassVar[int] = 86_534_800
    Config: ClassVar[type[Strict]] = ActionConfig
    media: Media = "video"
    scale: ClassVar[str] = "log-probability of the action: 0 certain, -6.0 as good as a guess among 400"

    def __init__(self, config: ActionConfig, device: torch.device) -> None:
        """Loads the classifier, downloading it if need be. Raises BenchError."""
        super().__init__(config, device)
        self.labels: dict[str, int] = self.model.config.label2id
        self.frames: int = self.model.config.num_frames
        if config.action is not None:
            self._number(config.action)

    def _random(self) -> Any:
        from transformers import VideoMAEConfig, VideoMAEForVideoClassification

        config: Any = VideoMAEConfig()
        config.num_labels = ACTIONS
        self.preprocessor = Preprocessor.model_validate(VIDEOMAE)
        return random_model(lambda: VideoMAEForVideoClassification(config), RANDOM)

    def _read(self, *places: Path) -> Any:
        from transformers import VideoMAEForVideoClassification

        model = read_model(VideoMAEForVideoClassification, places[0], "action", "VideoMAE", self.dtype)
        self.preprocessor = Preprocessor.load(places[0], VIDEOMAE, "VideoMAE")
        return model

    def _scores(self, media: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Raises BenchError for a prompt without an action where none is set."""
        wanted = [self._number(self.config.action or self._named(prompt)) for prompt in prompts]
        logits = self._in_chunks(self._logits, media)
        return torch.nn.functional.log_softmax(logits, dim=1)[torch.arange(len(wanted)), wanted]

    def _logits(self, media: torch.Tensor) -> torch.Tensor:
        half = HalfPass(self.model.dtype)
        pixels = half.enter(prepared(with_frames(media, self.frames), self.preprocessor))
        return half.leave(self.model(pixel_values=pixels).logits)

    def _named(self, prompt: str) -> str:
        """The longest label that is part of the prompt; with random weights the prompt itself."""
        if self.config.random:
            return prompt
        found = [label for label in self.labels if label.lower() in prompt.lower()]
        if not found:
            raise BenchError(
                f"reward action: no label of the classifier is part of the prompt {prompt!r}: name the "
                "action with --set action.action=LABEL"
            )
        return max(found, key=len)

    def _number(self, action: str) -> int:
        return label_number(self.labels, action, self.config.random, "action.action")
