"""Files from a URL, through a cache of our own (XDG_CACHE_HOME, or BENCH_CACHE)."""

from __future__ import annotations

from pathlib import Path

from bench.errors import BenchError
from bench.weights import Need


def cached_url(need: Need) -> Path | None:
    """The directory that holds the file, if it was fetched before."""
    return None


def fetch_url(need: Need) -> Path:
    """Download the file; returns its directory. Raises BenchError."""
    raise BenchError(f"{need.name}: {need.place} is not on this machine")
