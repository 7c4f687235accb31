"""Agreement of a video and its prompt, by X-CLIP: CLIP with frames that exchange messages.

Source: Ni et al. 2022, "Expanding Language-Image Pretrained Models for General Video Recognition"
(arXiv:2208.02816), checkpoint microsoft/xclip-base-patch32, in transformers' code. The score is the cosine of
the video's embedding and of the text's, which X-CLIP adapts to the video ("video-specific prompting"); the
model's logit is exp(logit_scale) times that. Differs from CLIP's image score averaged over frames in that it
sees motion: frames are attended to together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

from pydantic import Field

from bench.base.lazy import torch
from bench.base.strict import Strict
from bench.engine.chunks import in_chunks
from bench.engine.reward import Media
from rewards.shared.checkpoint import (
    HashTokenizer,
    check_vocabulary,
    random_model,
    read_model,
    read_tokenizer,
)
from rewards.shared.checkpoint_reward import CheckpointReward, NetworkConfig
from rewards.shared.clip_image import Preprocessor
from rewards.shared.clip_towers import projected_text
from rewards.shared.frames import VIDEOMAE, prepared, with_frames
from rewards.shared.passes import HalfPass
from rewards.shared.random_clip import END, START, TOKENS, WORDS, fill_positions

SOURCE = "hub:microsoft/xclip-base-patch32"
RANDOM = "random:X-CLIP-B-32"


class XclipConfig(NetworkConfig):
    """Where the model is."""

    random_source: ClassVar[str] = RANDOM
    random_sources: ClassVar[tuple[str, ...]] = (RANDOM,)
    gigabytes: ClassVar[Mapping[str, float]] = {SOURCE: 0.79}

    source: str = Field(default=SOURCE, description=f"`hub:org/name`, `path:directory` or `{RANDOM}`")


@final
class XclipReward(CheckpointReward):
    """cos(video, text). Differentiable in the video; the model is frozen."""

    name: ClassVar[str] = "xclip"
    parameters: ClassVar[int] = 196_585_729
    Config: ClassVar[type[Strict]] = XclipConfig
    media: Media = "video"
    scale: ClassVar[str] = "cosine of video and text, in [-1, 1]"

    def __init__(self, config: XclipConfig, device: torch.device) -> None:
        """Loads the model, downloading it if need be. Raises BenchError."""
        super().__init__(config, device)
        self.frames: int = self.model.config.vision_config.num_frames
        self._texts: dict[str, torch.Tensor] = {}

    def _random(self) -> Any:
        from transformers import XCLIPConfig as Shapes
        from transformers import XCLIPModel, XCLIPTextConfig, XCLIPVisionConfig

        text, vision = XCLIPTextConfig().to_dict(), XCLIPVisionConfig().to_dict()
        shapes = Shapes(text_config=text, vision_config=vision)
        model: Any = random_model(lambda: XCLIPModel(shapes), RANDOM)
        fill_positions(model)
        with torch.no_grad():
            model.prompts_generator.alpha.fill_(shapes.prompt_alpha)
        self.tokenizer: Any = HashTokenizer(START, END, END, (0, WORDS), TOKENS)
        self.preprocessor = Preprocessor.model_validate(VIDEOMAE)
        return model

    def _read(self, *places: Path) -> Any:
        from transformers import CLIPTokenizer, XCLIPModel

        model = read_model(XCLIPModel, places[0], "xclip", "X-CLIP", self.dtype)
        self.tokenizer = read_tokenizer(CLIPTokenizer, places[0], "xclip")
        check_vocabulary(self.tokenizer, model.config.text_config.vocab_size, places[0], "xclip")
        self.preprocessor = Preprocessor.load(places[0], VIDEOMAE, "X-CLIP")
        return model

    def _scores(self, media: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        return in_chunks(lambda part: self._cosine(media[part], prompts[part]), len(media), self.chunk)

    def _cosine(self, media: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """XCLIPModel.forward for pairs of video and text, instead of for all videos with all texts."""
        model, half = self.model, HalfPass(self.model.dtype)
        pixels = half.enter(prepared(with_frames(media, self.frames), self.preprocessor))
        seen = model.vision_model(pixel_values=pixels.flatten(0, 1))
        frames = model.visual_projection(seen.pooler_output).unflatten(0, pixels.shape[:2])
        video = model.mit(frames).pooler_output
        patches = (
            model.prompts_visual_layernorm(seen.last_hidden_state[:, 1:]) @ model.prompts_visual_projection
        )
        patches = patches.unflatten(0, pixels.shape[:2]).mean(dim=1)
        text = torch.stack([self._text(prompt) for prompt in prompts])
        text = (text[:, None] + model.prompts_generator(text[:, None], patches))[:, 0]
        both = torch.nn.functional.normalize(half.leave(torch.stack([video, text], dim=1)), dim=-1)
        return (both[:, 0] * both[:, 1]).sum(dim=-1)

    def _text(self, prompt: str) -> torch.Tensor:
        """A constant [D] without gradient, each prompt's computed once and alone."""
        if prompt not in self._texts:
            self._texts[prompt] = projected_text(self.model, self.tokenizer, prompt, self.device)[0]
        return self._texts[prompt]
