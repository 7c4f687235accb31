"""A sweep's code: a copy in the results directory, so that editing the checkout changes nothing queued.

Copied are the program's packages as they are, committed or not, once for every content. `snapshot.json`
beside the copy says which commit it was and whether files differed. Plugins, `python:` rewards and the
environment's packages are not copied.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import bench
from bench.base.files import write_atomically
from bench.base.layers import config_dir
from bench.run.environment import SNAPSHOT, git_state
from bench.run.slurm.record import CODE, FOLDER
from bench.run.store import ResultsDir

PACKAGES = ("bench", "methods", "rewards")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")


def take(results: ResultsDir) -> tuple[Path, dict[str, Any]]:
    """The directory to put first on the path of jobs, and what is in it."""
    root = Path(bench.__file__).parent.parent
    folders = {name: root / name for name in PACKAGES} | {"configs": config_dir()}
    files = {
        Path(name) / file.relative_to(folder): file
        for name, folder in folders.items()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }
    digest = _digest(files)
    target = results.path / FOLDER / CODE / digest
    content: dict[str, Any] = {"digest": digest, "git": git_state(root)}
    if not (target / SNAPSHOT).is_file():
        fresh = target.with_name(f".{digest}.{os.getpid()}.tmp")
        for name, folder in folders.items():
            shutil.copytree(folder, fresh / name, ignore=LEFT_OUT)
        write_atomically(fresh / SNAPSHOT, json.dumps(content, indent=2) + "\n")
        _put(fresh, target)
    return target, content


def _put(fresh: Path, target: Path) -> None:
    """In one step; another submitter may have been faster with the same code."""
    try:
        fresh.rename(target)
    except OSError:
        if not (target / SNAPSHOT).is_file():
            raise
        shutil.rmtree(fresh)


def _digest(files: dict[Path, Path]) -> str:
    total = hashlib.sha256()
    for name, file in files.items():
        total.update(f"{name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:12]
