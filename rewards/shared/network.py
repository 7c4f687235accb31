"""What rewards by one frozen checkpoint in transformers' format share: where it is, what it calls things.

With random weights nothing is known by name, so a label's number is a checksum of it, as a word's is.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from bench.base.errors import BenchError, did_you_mean
from bench.base.strict import Strict
from bench.data.need import Need, check_source
from rewards.shared.checkpoint import CHUNK, HALF, Dtype

VIDEOMAE = {"resample": 2, "image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}  # absent keys


class NetworkConfig(Strict):
    """Where the checkpoint is, and how it runs."""

    random_source: ClassVar[str]
    gigabytes: ClassVar[Mapping[str, float]]  # of known hub sources

    source: str = Field(description="`hub:org/name`, `path:directory` or `random:…`")
    path: Path | None = Field(
        default=None, description="local directory with the checkpoint, instead of source"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit of a hub source")
    dtype: Dtype = Field(default="half", description=HALF)
    chunk: int = Field(default=8, ge=1, description=CHUNK)

    @field_validator("source")
    @classmethod
    def _is_a_source(cls, value: str) -> str:
        check_source(value, ("hub", "path", "random"))
        if value.startswith("random:") and value != cls.random_source:
            raise ValueError(f"{value!r} is not {cls.random_source}")
        return value

    @property
    def random(self) -> bool:
        """Whether the weights are random numbers."""
        return self.path is None and self.source == self.random_source

    def needs(self, name: str, section: str) -> tuple[Need, ...]:
        """The checkpoint; nothing for random weights."""
        if self.random:
            return ()
        known = self.path is None and self.source in self.gigabytes
        size = self.gigabytes[self.source] if known else None
        return (Need(name, self.source, f"{section}.path", self.path, self.revision, gigabytes=size),)


def label_number(labels: Mapping[str, int], name: str, hashed: bool, setting: str) -> int:
    """The model's number of a label, whatever its case. hashed: one out of as many, by a checksum.

    setting: names the label in messages. Raises BenchError for one that the model does not know.
    """
    if hashed:
        return zlib.crc32(name.lower().encode()) % len(labels)
    lower = {label.lower(): number for label, number in labels.items()}
    if name.lower() not in lower:
        known = sorted(lower)
        raise BenchError(
            f"{setting}: the model knows no '{name}'.{did_you_mean(name.lower(), known)} It knows "
            f"{len(known)} labels, such as {', '.join(known[:5])}"
        )
    return lower[name.lower()]
