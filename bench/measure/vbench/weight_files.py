"""The weights that VBench's dimensions need: where they lie, which are absent, and how they get there.

VBench keeps them under VBENCH_CACHE_DIR, else ~/.cache/vbench. No torch in here.
"""

from __future__ import annotations

import os
import shlex
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.data import cache, url
from bench.data.need import Need
from bench.measure.vbench.dimensions import RAFT, Dimension, File

BERT = "bert-base-uncased"  # tag2text's tokenizer and layers, by the Hugging Face hub
BERT_FILES = ("config.json", "tokenizer_config.json", "vocab.txt", "model.safetensors")


def cache_directory() -> Path:
    """Where VBench looks for weights. It need not exist."""
    chosen = os.environ.get("VBENCH_CACHE_DIR")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".cache" / "vbench"


def needed(dimension: Dimension, static_filter: bool) -> tuple[File, ...]:
    """Its files; with the filter also those of the network that finds static videos."""
    return (*dimension.files, RAFT) if static_filter else dimension.files


def absent(files: Sequence[File]) -> list[File]:
    """Those that are not there."""
    return [file for file in files if not (cache_directory() / file.path).is_file()]


def absent_hub(dimension: Dimension) -> list[str]:
    """Repositories of the hub that the dimension reads and whose files are not in the hub's cache."""
    if dimension.name != "scene":
        return []
    from huggingface_hub import try_to_load_from_cache

    found = [isinstance(try_to_load_from_cache(BERT, name), str) for name in ("config.json", "vocab.txt")]
    return [] if all(found) else [BERT]


def sized(file: File) -> str:
    """The file's name with its size, for example `amt-s.pth (12 MB)`."""
    size = "" if file.megabytes is None else f" ({file.megabytes:g} MB)"
    path = Path(file.path)
    return f"{path.name if file.unpack is None else f'{path.parent.name}/{path.name}'}{size}"


def how_to(file: File) -> str:
    """The command that puts it where VBench looks, or what to do instead of one."""
    target = cache_directory() / file.path
    if file.unpack is not None:
        folder = shlex.quote(str(cache_directory() / file.unpack))
        return f"unpack {file.url} into {folder}, so that {target} is there"
    where, to = shlex.quote(str(target.parent)), shlex.quote(str(target))
    return f"mkdir -p {where} && curl -L -o {to} {shlex.quote(file.url)}"


def fetch(file: File) -> None:
    """Download one file into VBench's cache. Raises BenchError: no network, a refusal, a full disk."""
    need = Need(f"VBench's {Path(file.path).name}", f"url:{file.url}", "", sha256=file.sha256)
    try:
        found = url.fetch_url(need) / cache.file_path(need).name
    except BenchError as error:
        reason = str(error).splitlines()[0]
        raise BenchError(f"{reason}\n  By hand: {how_to(file)}") from error
    target = cache_directory() / file.path
    try:
        if file.unpack is None:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(found, target.with_name(target.name + ".part"))
            target.with_name(target.name + ".part").replace(target)
        else:
            _unpack(found, cache_directory() / file.unpack, target)
    except (OSError, zipfile.BadZipFile) as error:
        raise BenchError(f"cannot put {file.url} into {target.parent}: {error}") from error
    url.forget(need)


def fetch_hub(repository: str) -> None:
    """Download what tag2text reads from the hub. Raises BenchError."""
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(repository, allow_patterns=list(BERT_FILES))
    except Exception as error:  # the hub's own, requests', httpx's
        raise BenchError(f"{repository} could not be had from the hub: {error}") from error


def _unpack(archive: Path, folder: Path, target: Path) -> None:
    """Unpack the part of a zip in which `target`'s place under `folder` exists, `target` itself last."""
    wanted = target.relative_to(folder).as_posix()
    with zipfile.ZipFile(archive) as stream:
        names = [name for name in stream.namelist() if not name.endswith("/")]
        at = next((n for n in names if n == wanted or n.endswith(f"/{wanted}")), None)
        if at is None:
            raise BenchError(f"{archive.name} holds no {wanted}")
        prefix = at[: -len(wanted)]
        inside = [name for name in names if name.startswith(prefix) and ".." not in Path(name).parts]
        for name in sorted(inside, key=lambda name: name == at):
            write_atomically(folder / name[len(prefix) :], stream.read(name))
