"""Files from a URL, through a cache of our own.

The cache is BENCH_CACHE, else XDG_CACHE_HOME/reward-finetuning-bench, else ~/.cache/reward-finetuning-bench.
Each file has a directory of its own in `downloads/`, named by a digest of its URL. It may also hold

- NAME.part: a download that was broken off. The next one continues it (HTTP Range) where the server allows
  that and vouches for the file being the same (If-Range), or where the file's digest is known; else it starts
  again;
- NAME.part-info: the server's validator (ETag or Last-Modified) of NAME.part;
- NAME.sha256: the digest that the file has to have: the known one, else what it had when it was fetched;
- NAME.lock: held by the process that downloads it; others wait.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from bench.base.errors import BenchError
from bench.base.locks import lock
from bench.data.advice import bench_command
from bench.data.cache import by_hand, file_path
from bench.data.need import Need

SECONDS = 10.0  # to connect, and the longest silence in between
CHUNK = 2**20
OFFLINE = ("HF_HUB_OFFLINE", "BENCH_OFFLINE")
YES = ("1", "true", "yes", "on")

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all if the server says


def cached_url(need: Need) -> Path | None:
    """The directory that holds the file, if it is there. Raises BenchError if it is another than expected.

    A file that was put there by hand is digested once, where the digest is known; one that was fetched,
    again where it has changed since.
    """
    file = file_path(need)
    if not file.is_file():
        return None
    expected = need.sha256 or _noted(file)
    if expected is not None and not _known_good(file, expected):
        actual = _digest(file)
        if actual != expected:
            both = f"{shlex.quote(str(file))} {shlex.quote(str(_note(file)))}"
            raise BenchError(
                f"{need.name}: {file} is damaged or another file: its sha256 is {actual},"
                f" expected {expected}.\n"
                f"  Remove it and fetch it again:  rm -f {both} && {by_hand(need)}"
            )
        _note(file).write_text(actual)
    return file.parent


def forget(need: Need) -> None:
    """Remove the file of a `url:` need, so that the next one is fetched or taken anew."""
    file_path(need).unlink(missing_ok=True)
    _note(file_path(need)).unlink(missing_ok=True)


def fetch_url(need: Need, progress: Progress | None = None) -> Path:
    """Download the file unless it is there; returns its directory.

    progress: called as the bytes arrive. Raises BenchError: no network, the server's refusal, a broken
    connection (what has arrived is kept), another digest than `need.sha256` (nothing is kept).
    """
    if found := cached_url(need):
        return found
    for variable in OFFLINE:
        if os.environ.get(variable, "").lower() in YES:
            raise _missing(need, f"{variable} is set")
    if not need.place.startswith(("https://", "http://")):
        raise BenchError(f"{need.name}: '{need.place}' is not a URL: it must start with https:// or http://")
    file = file_path(need)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.with_name(file.name + ".lock").open("w") as stream:
            lock(stream, file.parent, wait=True)
            if found := cached_url(need):  # another process was faster
                return found
            return _fetched(need, file, progress)
    except OSError as error:
        raise BenchError(f"{need.name}: cannot write to {file.parent}: {error.strerror}") from error


def _fetched(need: Need, file: Path, progress: Progress | None) -> Path:
    part = _Part.beside(file)
    while True:
        before = part.size
        try:
            complete = _transfer(need, part, progress)
            why = "the connection broke off"
        except urllib.error.HTTPError as error:
            raise _missing(need, f"the server answered {error.code} {error.reason}") from error
        except (_Unreachable, HTTPException) as error:
            complete, why = False, str(error)
        if complete:
            break
        if part.size <= before:  # an attempt that brought nothing
            raise _missing(need, f"{why}; {before} bytes are kept for the next try" if before else why)
    actual = _digest(part.path)
    if need.sha256 is not None and actual != need.sha256:
        part.discard()
        raise _missing(
            need, f"what {need.place} sent has sha256 {actual}, expected {need.sha256}; it was deleted"
        )
    _note(file).write_text(actual)
    part.path.replace(file)
    part.info.unlink(missing_ok=True)
    return file.parent


class _Unreachable(Exception):
    """The network failed, as opposed to the disk."""


@dataclass(frozen=True)
class _Part:
    path: Path
    info: Path

    @classmethod
    def beside(cls, file: Path) -> _Part:
        return cls(file.with_name(file.name + ".part"), file.with_name(file.name + ".part-info"))

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def validator(self) -> str:
        return self.info.read_text() if self.info.is_file() else ""

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.info.unlink(missing_ok=True)


def _transfer(need: Need, part: _Part, progress: Progress | None) -> bool:
    """One request; whether the file is complete. Continues `part` where that is safe."""
    request = urllib.request.Request(need.place, headers={"Accept-Encoding": "identity"})
    if part.size and not part.validator and need.sha256 is None:
        part.discard()  # nothing could tell whether the rest is of the same file
    if part.size:
        request.add_header("Range", f"bytes={part.size}-")
        if part.validator:
            request.add_header("If-Range", part.validator)
    try:
        response = urllib.request.urlopen(request, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not part.size:  # 416: the file ends before or at the part's end
            raise
        error.close()
        part.discard()
        return _transfer(need, part, progress)
    except OSError as error:
        raise _Unreachable(f"{urlsplit(need.place).netloc} is unreachable: {_reason(error)}") from error
    with response:
        return _received(response, part, progress)


def _received(response: HTTPResponse, part: _Part, progress: Progress | None) -> bool:
    kept = part.size
    continued = response.status == 206
    if continued and not (response.headers["Content-Range"] or "").startswith(f"bytes {kept}-"):
        raise _Unreachable("the server sent another part than was asked for")
    start = kept if continued else 0
    length = response.headers["Content-Length"]
    total = None if length is None else start + int(length)
    if not continued:
        etag = response.headers["ETag"] or ""
        strong = "" if etag.startswith("W/") else etag  # If-Range takes no weak one
        part.info.write_text(strong or response.headers["Last-Modified"] or "")
    with part.path.open("ab" if continued else "wb") as stream:
        done = start
        while chunk := _read(response):
            stream.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
    return total is None or done == total


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK)
    except OSError as error:
        raise _Unreachable(f"the connection broke off: {_reason(error)}") from error


def _reason(error: OSError) -> object:
    return getattr(error, "reason", error)


def _note(file: Path) -> Path:
    return file.with_name(file.name + ".sha256")


def _noted(file: Path) -> str | None:
    """The digest that the file had when it was fetched, if that was noted."""
    return _note(file).read_text() if _note(file).is_file() else None


def _known_good(file: Path, sha256: str) -> bool:
    note = _note(file)
    if not note.is_file() or note.stat().st_mtime_ns < file.stat().st_mtime_ns:
        return False
    return note.read_text() == sha256


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _missing(need: Need, why: str) -> BenchError:
    return BenchError(
        f"{need.name}: {file_path(need).name} is not on this machine ({why}).\n"
        f"  Get it where there is a network:  {bench_command(need)}\n"
        f"  or without this package:          {by_hand(need)}\n"
        f"  (or on another machine, and copy the file to that place)"
    )
