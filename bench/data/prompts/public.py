"""Public prompt sets: where their files are, and how they become prompts to train and to evaluate on.

What may be shipped is in `data/`; the rest is fetched into the hub's cache or our own. A set without a split
of its own is split by a hash of each prompt's text, as a user's file is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.base.errors import BenchError
from bench.data import advice, sources
from bench.data.need import Need
from bench.data.prompts import files, formats

DATA = Path(__file__).parent / "data"
STYLES = ("anime", "concept-art", "paintings", "photo")

PARTI = (
    "url:https://raw.githubusercontent.com/google-research/parti/2c99f6652cbc7f0d0441aa91f4c7e7055bcb0071/"
    "PartiPrompts.tsv"
)
DRAWBENCH = (
    "url:https://docs.google.com/spreadsheets/d/1y7nAbmR4FREi6npB1u-Bo3GFdwdOPYJc617rBOxIRHY/"
    "gviz/tq?tqx=out:csv"
)

Splits = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class PublicSet:
    """A set made of files: one need each, in the order in which `read` takes them."""

    files: tuple[Need, ...]
    read: Callable[[tuple[Path, ...]], Splits]

    def load(self, name: str) -> Splits:
        """Training and evaluation prompts. Raises BenchError that says how to get what is not here, and how
        to get rid of what an address sent instead."""
        paths = tuple(_found(name, need) for need in self.files)
        try:
            return self.read(paths)
        except BenchError as error:
            if not any(need.kind == "url" for need in self.files):
                raise
            raise BenchError(f"{error}\n  Fetch it anew:  python -m bench fetch --prompts {name}") from error


def hpdv2(paths: tuple[Path, ...]) -> Splits:
    """HPDv2's benchmark prompts, one JSON list of texts per style; each style is split for itself."""
    return _joined([_split(path, formats.json_texts(path)) for path in paths])


def pickapic(paths: tuple[Path, ...]) -> Splits:
    """Pick-a-Pic's 500 distinct captions for validation to train on, its 500 for test to evaluate on."""
    validation, test = (formats.distinct(formats.parquet_column(path, "caption")) for path in paths)
    held_out = {prompt.casefold() for prompt in test}
    return tuple(prompt for prompt in validation if prompt.casefold() not in held_out), test


def drawbench(paths: tuple[Path, ...]) -> Splits:
    """DrawBench's sheet as CSV, columns Prompts and Category."""
    return _split(paths[0], formats.table_column(paths[0], "Prompts", "csv"))


def partiprompts(paths: tuple[Path, ...]) -> Splits:
    """PartiPrompts.tsv, columns Prompt, Category, Challenge and Note."""
    return _split(paths[0], formats.table_column(paths[0], "Prompt", "tsv"))


def vbench(paths: tuple[Path, ...]) -> Splits:
    """The prompts of VBench's suite, training and held out."""
    return _split(paths[0], formats.json_field(paths[0], "prompt_en"))


def _style(style: str) -> Need:
    return _dataset("hpdv2", "zhwang/HPDv2", f"benchmark/{style}.json", 0.0001)


def _dataset(name: str, repository: str, file: str, gigabytes: float) -> Need:
    """One file of a dataset on the hub; in a need of several, one's absence would go unnoticed."""
    return Need(
        f"prompts {name}",
        f"hub:{repository}",
        "",
        files=(file,),
        ignored=(),
        gigabytes=gigabytes,
        repo_type="dataset",
    )


def _url(name: str, source: str, gigabytes: float) -> Need:
    return Need(f"prompts {name}", source, "", gigabytes=gigabytes)


SETS: dict[str, PublicSet] = {
    "hpdv2": PublicSet(tuple(_style(style) for style in STYLES), hpdv2),
    **{f"hpdv2-{style}": PublicSet((_style(style),), hpdv2) for style in STYLES},
    "pickapic": PublicSet(
        tuple(
            _dataset("pickapic", "yuvalkirstain/pickapic_v1_no_images", f"data/{part}-*.parquet", 0.00015)
            for part in ("validation_unique", "test_unique")
        ),
        pickapic,
    ),
    "drawbench": PublicSet((_url("drawbench", DRAWBENCH, 0.00002),), drawbench),
    "partiprompts": PublicSet((_url("partiprompts", PARTI, 0.0002),), partiprompts),
}


def load_vbench() -> Splits:
    """VBench's suite, which is shipped."""
    return vbench((DATA / "vbench_full_info.json",))


def vbench_dimensions() -> tuple[str, ...]:
    """The names of VBench's dimensions, as its suite mentions them."""
    suite = json.loads((DATA / "vbench_full_info.json").read_bytes())
    return tuple(dict.fromkeys(name for entry in suite for name in entry["dimension"]))


def _found(name: str, need: Need) -> Path:
    """The file of a need. Never downloads: that is what `bench fetch` is for."""
    directory = sources.find(need)
    if directory is None:
        raise BenchError(
            f"prompt set '{name}' is not on this machine. Get it where there is a network:\n"
            f"  python -m bench fetch --prompts {name}\n"
            f"  or without this package:  {advice.fetch_command(need)}"
        )
    if need.kind == "url":
        from bench.data.cache import file_path

        return file_path(need)
    matching = sorted(directory.glob(need.files[0]))
    if len(matching) != 1:
        raise BenchError(f"{directory}: expected one file {need.files[0]}, found {len(matching)}")
    return matching[0]


def _split(path: Path, prompts: list[str]) -> Splits:
    return files.hash_split(path, formats.distinct(prompts))


def _joined(parts: list[Splits]) -> Splits:
    """Several sets as one; a prompt of several is kept where it comes first."""
    held_out = formats.distinct(prompt for _, part in parts for prompt in part)
    known = {prompt.casefold() for prompt in held_out}
    train = formats.distinct(prompt for part, _ in parts for prompt in part)
    return tuple(prompt for prompt in train if prompt.casefold() not in known), held_out
