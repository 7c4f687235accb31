"""What a network is told about a prompt: text states, for some models also pooled ones, per stage.

A stage is a set of steps with a text of its own: without a schedule there is one, the prompt itself. With one
(DCoT, per-step prompts) every prompt has as many texts as there are stages, and step i is conditioned on the
text of its stage.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.models.config import ModelConfig


@dataclass(frozen=True)
class Texts:
    """States [B, stages, tokens, width], and of models that use them pooled embeddings [B, stages, width]."""

    states: Tensor
    pooled: Tensor | None = None

    def select(self, rows: Tensor) -> Texts:
        """The same texts for the given rows of the batch."""
        return Texts(self.states[rows], None if self.pooled is None else self.pooled[rows])

    def stage(self, k: int) -> Texts:
        """One stage: states [B, tokens, width], pooled [B, width]."""
        return Texts(self.states[:, k], None if self.pooled is None else self.pooled[:, k])

    def below(self, other: Texts) -> Texts:
        """`other`'s rows, then these."""
        pooled = None
        if self.pooled is not None and other.pooled is not None:
            pooled = torch.cat([other.pooled, self.pooled])
        return Texts(torch.cat([other.states, self.states]), pooled)


@dataclass(frozen=True)
class TextCondition:
    """The prompts' texts and, with guidance, the empty prompt's."""

    positive: Texts
    negative: Texts | None

    def select(self, rows: Tensor) -> TextCondition:
        """The same texts for the given rows of the batch."""
        negative = None if self.negative is None else self.negative.select(rows)
        return TextCondition(self.positive.select(rows), negative)


@dataclass(frozen=True)
class Schedule:
    """Which text each step sees: a prompt's texts, one per stage, and the stage of every step."""

    stages: Mapping[str, tuple[str, ...]]
    stage_at: tuple[int, ...]

    def texts(self, prompt: str) -> tuple[str, ...]:
        """The prompt's text at every stage. Raises BenchError for a prompt that has none."""
        if prompt not in self.stages:
            raise BenchError(
                f"no texts per stage for the prompt {prompt!r}: the schedule must cover every prompt"
            )
        return self.stages[prompt]

    def stage_of(self, i: int) -> int:
        """The stage of step i (0: the noisiest)."""
        return self.stage_at[i]


def make_schedule(stages: Mapping[str, Sequence[str]], stage_at: Sequence[int], steps: int) -> Schedule:
    """A schedule for a chain of `steps` steps. Raises BenchError where the numbers do not fit."""
    if len(stage_at) != steps:
        raise BenchError(f"per-step texts: {len(stage_at)} stages are given for {steps} steps")
    counts = {len(texts) for texts in stages.values()}
    if len(counts) != 1:
        raise BenchError(f"per-step texts: prompts have {sorted(counts)} texts; all need the same number")
    (count,) = counts
    if not all(0 <= stage < count for stage in stage_at):
        raise BenchError(f"per-step texts: stages {sorted(set(stage_at))}, but each prompt has {count} texts")
    return Schedule({prompt: tuple(texts) for prompt, texts in stages.items()}, tuple(stage_at))


class TextEncoder(ABC):
    """The text side of a pipeline: every text is embedded once and kept in CPU memory."""

    def __init__(self, encoders: Sequence[tuple[Any, Any]], device: torch.device, dtype: torch.dtype) -> None:
        """encoders: pairs of tokenizer and network; networks are frozen and moved to the device."""
        self.device, self.dtype, self._encoders = device, dtype, list(encoders)
        for _, encoder in self._encoders:
            encoder.requires_grad_(False).eval().to(device)
        self._known: dict[str, tuple[Tensor, Tensor | None]] = {}

    @abstractmethod
    def _encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """States [N, tokens, width] and, of models that use them, pooled embeddings [N, width]."""

    def empty(self, count: int, stages: int) -> Texts:
        """What guidance moves away from: the empty text."""
        return self([[""] * stages] * count)

    def __call__(self, prompts: Sequence[Sequence[str]]) -> Texts:
        """Texts of prompts, each given as its texts at every stage."""
        self._embed([text for texts in prompts for text in texts])
        rows = [[self._known[text] for text in texts] for texts in prompts]
        states = torch.stack([torch.stack([states for states, _ in row]) for row in rows])
        if any(pooled is None for _, pooled in rows[0]):
            return Texts(states.to(self.device, self.dtype))
        pooled = torch.stack([torch.stack([p for _, p in row if p is not None]) for row in rows])
        return Texts(states.to(self.device, self.dtype), pooled.to(self.device, self.dtype))

    @torch.no_grad()
    def _embed(self, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if not new:
            return
        states, pooled = self._encode(new)
        each = [None] * len(new) if pooled is None else pooled.cpu()
        self._known.update(zip(new, zip(states.cpu(), each, strict=True), strict=True))

    def _run(self, which: int, texts: Sequence[str], length: int | None = None, **options: bool) -> Any:
        """One encoder's outputs. length: tokens of a text; None: the most that tokenizer and encoder know."""
        tokenizer, encoder = self._encoders[which]
        if length is None:
            # A tokenizer without a tokenizer_config.json (openai/clip's first ones) knows no maximum.
            length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        ids = tokenizer(
            list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids
        return encoder(ids.to(self.device), **options)


@final
class ClipTexts(TextEncoder):
    """The one encoder of SD 1.x and 2.x, or the two of SDXL."""

    def __init__(self, pipeline: Any, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        """See TextEncoder."""
        del config
        encoders = [(pipeline.tokenizer, pipeline.text_encoder)]
        self._two = hasattr(pipeline, "text_encoder_2")
        self._zero_empty = self._two and bool(pipeline.config["force_zeros_for_empty_prompt"])
        if self._two:
            encoders.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
        super().__init__(encoders, device, dtype)

    def empty(self, count: int, stages: int) -> Texts:
        """The empty text, or zeros where the model was trained so."""
        texts = super().empty(count, stages)
        if not self._zero_empty or texts.pooled is None:
            return texts
        return Texts(torch.zeros_like(texts.states), torch.zeros_like(texts.pooled))

    def _encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        if not self._two:
            return self._run(0, texts)[0], None
        first = self._run(0, texts, output_hidden_states=True)
        second = self._run(1, texts, output_hidden_states=True)
        states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return states, second.text_embeds
