"""Snapshots from the Hugging Face hub: the cache, the download, and what each failure means for the user."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from bench.base.errors import BenchError
from bench.base.files import FULL, existing
from bench.data.advice import bench_command, missing
from bench.data.need import Need

SITE = "https://huggingface.co"  # where licences are accepted, whatever mirror serves the files
CONNECT_SECONDS = 5.0
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
REFUSED = (401, 403)
PLAIN = re.compile(r"[A-Za-z0-9]+([-_.][A-Za-z0-9]+)*/[A-Za-z0-9]+([-_.][A-Za-z0-9]+)*(?<!\.git)")  # names
PARTS = (
    "unet",
    "transformer",
    "vae",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
)  # those with weights


def cached(need: Need) -> Path | None:
    """The snapshot in the cache, if it is complete as far as the cache knows."""
    if _never_fetched(need):
        return None
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = Path(_snapshot(need, cached=True))
    except LocalEntryNotFoundError:
        return None
    return found if holds(found, need) else None


def _never_fetched(need: Need) -> bool:
    """Whether the cache has no folder of a repository: seen without the library's client, which takes a
    quarter of a second to import. Of names that may be none, the library says what is wrong."""
    from huggingface_hub import constants

    folder = "--".join((f"{need.repo_type}s", *need.place.split("/")))
    return PLAIN.fullmatch(need.place) is not None and not (Path(constants.HF_HUB_CACHE) / folder).exists()


def download(need: Need) -> Path:
    """Fetch what is not in the cache yet. Raises BenchError.

    A connection that breaks is taken up again a few times where it broke. After that the complete files
    are kept, and the next call fetches the others.
    """
    check_reachable(need)
    found = Path(_translated(need, dry_run=False))
    if not holds(found, need):
        raise BenchError(
            f"{need.name}: {page(need)} has none of the files {', '.join(need.files)}: it is another"
            " repository than expected, or they were withdrawn"
        )
    if need.repo_type == "dataset":
        _check_digests(found, need)
    return found


def _check_digests(directory: Path, need: Need) -> None:
    """The library checks sizes alone. Its cache names each file by the hub's digest: sha256, or git's sha1
    of small ones. Weights are so large that reading them again would take as long as a run's start."""
    for file in (file for pattern in need.files for file in directory.glob(pattern)):
        stored = file.resolve()
        if re.fullmatch("[0-9a-f]{64}", stored.name):
            actual = hashlib.sha256(stored.read_bytes()).hexdigest()
        elif re.fullmatch("[0-9a-f]{40}", stored.name):
            data = stored.read_bytes()
            actual = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        else:
            continue  # a mirror that calls it something else
        if actual != stored.name:
            file.unlink()
            stored.unlink(missing_ok=True)
            raise missing(need, f"what arrived as {file.name} is damaged: it is {actual}, not {stored.name}")


def download_size(need: Need) -> int:
    """Bytes that `download` would transfer. Asks the hub. Raises BenchError."""
    check_reachable(need)
    files = _translated(need, dry_run=True)
    return sum(file.file_size for file in files if file.will_download)


def check_reachable(need: Need) -> None:
    """One short request, so that a machine without network fails in seconds and not after long retries."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        names = [name for name in OFFLINE if os.environ.get(name)]
        raise missing(need, f"{names[0] if names else OFFLINE[0]} is set: unset it where there is a network")
    request = urllib.request.Request(f"{constants.ENDPOINT}/api/{need.repo_type}s/{need.place}")
    if token := get_token():
        request.add_header("Authorization", f"Bearer {token}")
    try:
        urllib.request.urlopen(request, timeout=CONNECT_SECONDS).close()
    except urllib.error.HTTPError as error:
        raise _refusal(need, error.code, str(error.reason)) from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise missing(
            need,
            f"not in the hub cache, and {constants.ENDPOINT} is unreachable: {reason}",
            ("there is no network here, or it takes a proxy (HTTPS_PROXY) or a mirror (HF_ENDPOINT)",),
        ) from error


def page(need: Need) -> str:
    """The repository's page on the hub."""
    return f"{SITE}/{'datasets/' if need.repo_type == 'dataset' else ''}{need.place}"


def _snapshot(need: Need, *, cached: bool = False, dry_run: bool = False) -> Any:
    """The snapshot's directory; in a dry run what would be downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        found = snapshot_download(
            need.place,
            repo_type=need.repo_type,
            revision=need.revision,
            allow_patterns=list(need.files),
            ignore_patterns=list(need.ignored),
            local_files_only=cached,
            dry_run=dry_run,
        )
    except HFValidationError as error:
        raise BenchError(f"{need.name}: hub:{need.place} is not a repository's name: {error}") from error
    return found


def _translated(need: Need, dry_run: bool) -> Any:
    """`_snapshot` from the network; what goes wrong there as one message."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return _snapshot(need, dry_run=dry_run)
    except GatedRepoError as error:
        raise _refusal(
            need, error.response.status_code, "access is granted on the repository's page"
        ) from error
    except RevisionNotFoundError as error:
        newest = ("--set model.revision=main takes its newest",) if need.name == "model" else ()
        raise missing(need, f"{page(need)} has no revision '{need.revision}'", newest) from error
    except RepositoryNotFoundError as error:
        raise _refusal(need, error.response.status_code, "no such repository, or a private one") from error
    except HfHubHTTPError as error:
        raise _refusal(need, error.response.status_code, error.response.reason_phrase) from error
    except (HTTPError, OSError, RuntimeError) as error:  # RuntimeError: hf_xet's for everything
        raise _broken(need, error) from error


def _refusal(need: Need, status: int, reason: str) -> BenchError:
    why = f"the hub answered {status}: {reason}"
    if status in REFUSED:
        steps = (
            f"open {need.licence or page(need)}, accept the licence (or check the name: the hub says so",
            "  of repositories that do not exist, too), then:  hf auth login",
        )
        return missing(need, why, steps)
    if status == 404:
        last = need.place.rpartition("/")[2]
        return missing(
            need,
            why,
            (f"withdrawn, renamed, or a typing mistake; look at {SITE}/{need.repo_type}s?search={last}",),
        )
    return missing(need, why)


def _broken(need: Need, error: Exception) -> BenchError:
    from huggingface_hub import constants

    full = isinstance(error, OSError) and error.errno in FULL
    if full or "No space left" in str(error):
        cache = Path(constants.HF_HUB_CACHE)
        return BenchError(
            f"{need.name}: no space left in {cache} ({free_gigabytes(cache):.1f} GB free) to download "
            f"{need.place}. Complete files are kept.\n"
            f"  Free some space and give the same command again, or choose another disk:\n"
            f"  HF_HOME=DIRECTORY {bench_command(need)}"
        )
    said = str(error).strip() or type(error).__name__
    return BenchError(
        f"{need.name}: the download of {need.place} broke off: {said.splitlines()[0]}\n"
        f"  Complete files are kept; the same command fetches the others:  {bench_command(need)}"
    )


def free_gigabytes(place: Path) -> float:
    """GB free on the disk of a directory that may not exist yet."""
    return shutil.disk_usage(existing(place)).free / 1e9


def _has_part(directory: Path) -> bool:
    """Whether a part of a pipeline has its config and its weights."""
    return (directory / "config.json").is_file() and any(
        any(directory.glob(files)) for files in ("*.safetensors", "*.bin")
    )


def holds(directory: Path, need: Need) -> bool:
    """The cache knows a snapshot, not whether it is complete: other tools may have fetched its configs
    alone."""
    named = [pattern for pattern in need.files if "*" not in pattern]
    if not all((directory / name).is_file() for name in named):
        return False
    wanted = [p for p in need.files if not p.endswith((".json", ".txt", ".model"))] or list(need.files)
    if not any(any(directory.glob(pattern)) for pattern in wanted):
        return False
    index = directory / "model_index.json"
    if not index.is_file():
        return True
    text = index.read_text()
    wanted_parts = [part for part in PARTS if f"{part}/*" not in need.ignored]
    named = [part for part in wanted_parts if re.search(rf'"{part}"\s*:\s*\[\s*"', text)]  # not [null, null]
    return all(_has_part(directory / part) for part in named)
