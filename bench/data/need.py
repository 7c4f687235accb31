"""What files something cannot run without."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol, runtime_checkable

# What a Stable Diffusion directory needs, whichever of the two weight formats it carries.
HUB_PATTERNS = ("*.json", "*.txt", "*/*.json", "*/*.txt", "*/*.model", "*/*.safetensors")


CHECKPOINT_PATTERNS = ("*.json", "*.txt", "*.safetensors")  # a reward: one model in the top directory


PROCESSOR_PATTERNS = ("*.json", "*.txt")  # tokenizer and preprocessor


HUB_IGNORED = ("*.fp16.*", "*.non_ema.*", "safety_checker/*", "*flax*", "*onnx*", "*openvino*")


KINDS = ("embedded", "path", "hub", "url", "random")


@dataclass(frozen=True)
class Need:
    """Files that a model, a reward or a prompt set cannot do without.

    name: what needs them, for messages and digests ("model", "reward hpsv2"). source, path: see above; path
    overrides source. setting: the dotted key that a user sets to point elsewhere ("model.path"); empty where
    there is none. files: patterns of what is wanted from the hub. ignored: patterns of what is not. sha256:
    of a `url:` file, where known. gigabytes: size of the download, for doctor and fetch. licence: what must
    be accepted at the source before it can be had, as a URL. repo_type: the kind of repository on the hub.
    """

    name: str
    source: str | None
    setting: str
    path: Path | None = None
    revision: str | None = None
    files: tuple[str, ...] = CHECKPOINT_PATTERNS
    ignored: tuple[str, ...] = HUB_IGNORED
    sha256: str | None = None
    gigabytes: float | None = None
    licence: str | None = None
    repo_type: Literal["model", "dataset"] = "model"

    @property
    def kind(self) -> str:
        """`path` where a path is given, else the source's kind."""
        return "path" if self.path is not None or self.source is None else self.source.partition(":")[0]

    @property
    def place(self) -> str:
        """The source without its kind."""
        return (self.source or "").partition(":")[2]


@runtime_checkable
class HasNeeds(Protocol):
    """Settings of something that needs files."""

    def needs(self, name: str, section: str) -> tuple[Need, ...]:
        """What it cannot run without. name: for messages; section: what `--set SECTION.KEY` calls it."""
        ...


@runtime_checkable
class HasSource(Protocol):
    """Settings that name a source."""

    @property
    def source(self) -> str | None:
        """Where the files come from, in the notation of `Need.source`."""
        ...


@runtime_checkable
class HasRandom(Protocol):
    """Settings of a reward that can run with random numbers for weights."""

    random_source: ClassVar[str]


def needs_of(config: object, name: str, section: str) -> tuple[Need, ...]:
    """What these settings need: nothing unless they say so."""
    return config.needs(name, section) if isinstance(config, HasNeeds) else ()


def check_source(value: str | None, kinds: tuple[str, ...] = KINDS) -> str | None:
    """A pydantic validator's body: the source, if it is of a known kind. Raises ValueError."""
    if value is not None:
        kind, _, rest = value.partition(":")
        if kind not in kinds or not rest:
            raise ValueError(f"{value!r} is none of {', '.join(f'{k}:…' for k in kinds)}")
    return value
