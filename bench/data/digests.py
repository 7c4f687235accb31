"""Which weights they are: a digest of a directory's contents."""

import fnmatch
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from bench.base.errors import BenchError
from bench.base.units import MIB
from bench.data.cache import cache_directory


@runtime_checkable
class HasDigest(Protocol):
    """Settings of something that is more than its settings, such as code."""

    def digest(self) -> str | None:
        """What else it is, as sixteen hex digits; None if nothing."""
        ...


DIGESTED = (".safetensors", ".bin", ".pt", ".pth", ".json", ".jsonl", ".txt")


def digest(directory: Path, wanted: Sequence[str] = ("*",), ignored: Sequence[str] = ()) -> str:
    """Sixteen hex digits over names and contents of the weight and config files under `directory`.

    wanted, ignored: patterns of their paths in it; a hub snapshot may hold files that others asked for. A hub
    cache names its blobs by their hash, so big files there are not read; elsewhere a file is read once and
    remembered by path, size and time of change.
    """
    total = hashlib.sha256()
    walked = os.walk(directory, followlinks=True)  # the embedded models share parts by links
    files = sorted(Path(place) / name for place, _, names in walked for name in names)
    files = [file for file in files if file.suffix in DIGESTED and file.is_file()]
    files = [file for file in files if _counts(file.relative_to(directory), wanted, ignored)]
    if not files:
        raise BenchError(
            f"nothing to load in {directory}: no file in it ends in {', '.join(DIGESTED)}. Point to the "
            "directory that holds the files."
        )
    remembered = _Remembered.load()
    for file in files:
        total.update(f"{file.relative_to(directory)}\0{remembered.file(file)}\n".encode())
    remembered.save()
    return total.hexdigest()[:16]


def _counts(file: Path, wanted: Sequence[str], ignored: Sequence[str]) -> bool:
    """As the hub filters: a star matches slashes too."""
    name = file.as_posix()
    chosen = any(fnmatch.fnmatch(name, pattern) for pattern in wanted)
    return chosen and not any(fnmatch.fnmatch(name, pattern) for pattern in ignored)


def text_digest(lines: tuple[str, ...]) -> str:
    """Sixteen hex digits over a list of texts."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


class _Remembered:
    SMALL = 64 * MIB

    def __init__(self, path: Path, known: dict[str, str]) -> None:
        self.path, self.known, self.changed = path, known, False

    @classmethod
    def load(cls) -> "_Remembered":
        path = cache_directory() / "digests.json"
        try:
            return cls(path, json.loads(path.read_text()))
        except (OSError, ValueError):  # absent or damaged: it is only a cache
            return cls(path, {})

    def file(self, file: Path) -> str:
        blob = file.resolve()
        if blob.parent.name == "blobs" and len(blob.name) == 64:
            return blob.name
        stat = blob.stat()
        key = f"{blob}\0{stat.st_size}\0{stat.st_mtime_ns}"
        if key not in self.known:
            with blob.open("rb") as stream:
                value = hashlib.file_digest(stream, "sha256").hexdigest()
            if stat.st_size < self.SMALL:
                return value
            self.known[key], self.changed = value, True
        return self.known[key]

    def save(self) -> None:
        if not self.changed:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(self.known))
        temporary.replace(self.path)
