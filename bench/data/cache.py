"""Where downloads are kept."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bench.data.need import Need


def cache_directory() -> Path:
    """Where downloads and answers of language models are kept. It need not exist."""
    if chosen := os.environ.get("BENCH_CACHE"):
        return Path(chosen).expanduser().absolute()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "reward-finetuning-bench"


def file_path(need: Need) -> Path:
    """Where the file of a `url:` need is, or would be."""
    last = unquote(urlsplit(need.place).path).rpartition("/")[2]
    name = re.sub(r"[^\w.+-]+", "_", last).strip(".") or "file"
    return cache_directory() / "downloads" / hashlib.sha256(need.place.encode()).hexdigest()[:16] / name


def by_hand(need: Need) -> str:
    """The command that fetches the file without this package."""
    file = file_path(need)
    quoted = shlex.quote(str(file))
    return f"mkdir -p {shlex.quote(str(file.parent))} && curl -L -o {quoted} {shlex.quote(need.place)}"
