"""Where weights are: a `Need` says what something cannot run without, `locate` finds or fetches it.

A source is one of

- `embedded:NAME`: ships with this package;
- `path:DIRECTORY`;
- `hub:ORG/NAME`: the Hugging Face hub through its cache; HF_HOME, HF_HUB_OFFLINE and HF_ENDPOINT (mirrors)
  are honoured;
- `url:https://…/FILE`: one file, through a cache of our own (`bench.data.url`);
- `random:NAME`: no weights at all: random numbers in the true shapes of an architecture.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol, runtime_checkable

import bench
from bench.base.errors import BenchError

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
        """See above."""
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


def locate(need: Need) -> Path:
    """The directory with the files; what is on the hub is looked up in the cache, then downloaded.

    Raises BenchError that says how to get them.
    """
    if found := find(need):
        return found
    if need.kind == "url":
        from bench.data.url import fetch_url

        return fetch_url(need)
    from bench.data.hub import download

    return download(need)


def find(need: Need) -> Path | None:
    """The directory with the files if they are on this machine. Raises BenchError for a path without any."""
    if need.path is not None:
        return _existing(need.path, need)
    if need.source is None:
        raise BenchError(f"no weights named: give a directory with --set {need.setting}=DIRECTORY")
    if need.kind == "path":
        return _existing(Path(need.place), need)
    if need.kind == "embedded":
        return _existing(Path(bench.__file__).parent / "models" / "embedded" / "weights" / need.place, need)
    if need.kind == "url":
        from bench.data.url import cached_url

        return cached_url(need)
    from bench.data.hub import cached

    return cached(need)


def _existing(path: Path, need: Need) -> Path:
    directory = path.expanduser().resolve()
    if not directory.is_dir():
        raise BenchError(
            f"no weights at {directory}: not a directory. Set {need.setting} to one that holds them."
        )
    named = [file for file in need.files if "*" not in file]
    if lacking := [file for file in named if not (directory / file).is_file()]:
        raise BenchError(
            f"no weights at {directory}: {', '.join(lacking)} is not there. Set {need.setting} to a "
            "directory that holds it."
        )
    return directory


def missing(need: Need, why: str, steps: tuple[str, ...] = ()) -> BenchError:
    """The error for files that are not here: why, what helps against that, and the ways to get them."""
    what = "weights" if need.repo_type == "model" else "files"
    ways = [f"  {step}" for step in steps]
    if need.name.partition(" ")[0] in ("model", "reward", "prompts"):
        ways.append(f"  Get them where there is a network:  {bench_command(need)}")
    ways.append(f"  or without this package:            {fetch_command(need)}")
    if need.setting:
        place = "DIRECTORY" if need.setting.endswith((".path", ".llm")) else "path:DIRECTORY"
        ways.append(f"  or point to a local directory:      --set {need.setting}={place}")
    return BenchError(
        "\n".join((f"{what} of {need.place} ({need.name}) are not on this machine ({why}).", *ways))
    )


def bench_command(need: Need) -> str:
    """What to type to have the files, and the others that belong to the same model, reward or prompt set."""
    return f"python -m bench fetch {fetch_flag(need)}"


def fetch_flag(need: Need) -> str:
    """`--model sd14`: which flag of `bench fetch` names what needs the files."""
    kind, _, name = need.name.partition(" ")
    if kind in ("reward", "prompts") and name:
        return f"--{kind} {name.split()[0]}"
    return f"--model {shlex.quote(_model_of(need))}"


def _model_of(need: Need) -> str:
    """The shipped model that has this source, or the source itself, which is a model's name too."""
    from bench.base.layers import read_yaml, shipped

    found: list[
        tuple[int, str]
    ] = []  # number of sources, name: a pipeline alone before one with another UNet
    for name, file in shipped("models").items():
        model = read_yaml(file)["model"]
        sources = [model[key] for key in ("source", "unet_source") if key in model]
        if need.source in sources:
            found.append((len(sources), name))
    return min(found)[1] if found else need.source or "MODEL"


def fetch_command(need: Need) -> str:
    """What to type to have the files, without this package."""
    if need.kind == "url":
        from bench.data.url import by_hand

        return by_hand(need)
    at = f" --revision {need.revision}" if need.revision else ""
    named = [pattern for pattern in need.files if "*" not in pattern or need.repo_type != "model"]
    wanted = "".join(f" --include {shlex.quote(pattern)}" for pattern in named)
    kind = "" if need.repo_type == "model" else f"--repo-type {need.repo_type} "
    return f"hf download {kind}{need.place}{at}{wanted}"
