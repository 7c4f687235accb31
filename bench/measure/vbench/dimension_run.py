"""One dimension scored with the `vbench` package in a process of its own: what it lacks, and how it ended."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.base import devices
from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.measure.vbench import suite, weight_files
from bench.measure.vbench.dimension_status import DimensionStatus
from bench.measure.vbench.dimensions import GRIT
from bench.measure.vbench.score_request import SUFFIXES, ScoreRequest
from bench.measure.vbench.scorer import Missing, check_packages

SCORER = Path(__file__).with_name("scorer.py")
ROOT = Path(__file__).parents[3]
OWN = "It needs an environment of its own (docs/vbench.md), named by --python"


def lacking(request: ScoreRequest, fetch: bool) -> DimensionStatus | None:
    """The status that says what a dimension lacks: videos, packages, weights. None if it can be scored.

    fetch: download weights that are not here.
    """
    weights, ways = _no_weights(request, fetch)
    unmet = [text for text in (_no_videos(request), _no_packages(request), weights) if text]
    if not unmet:
        return None
    return DimensionStatus(state="missing", message="\n".join(unmet), ways=tuple(ways), **request.facts())


def run(request: ScoreRequest, fetch: bool) -> DimensionStatus:
    """Score it. Never raises for what is missing or goes wrong in the process: the status says it.

    A score of before is there until the process starts.
    """
    unmet = lacking(request, fetch)
    if unmet is not None:
        return unmet
    facts = request.facts()
    _prepare(request, request.given()[0])
    started = time.monotonic()
    request.result.unlink(missing_ok=True)
    outcome = _process(request)
    if outcome["state"] == "missing":
        outcome["message"] += f". {_remedy(request)}"
    if outcome["state"] == "failed":
        outcome["message"] += f" (its output: {request.workplace / 'output.txt'})"
    if outcome["state"] == "done":
        results = {request.dimension: outcome.pop("results")}
        write_atomically(request.result, json.dumps(results, indent=4, ensure_ascii=False) + "\n")
    shutil.rmtree(request.workplace / "static", ignore_errors=True)
    return DimensionStatus(**outcome, **facts, seconds=round(time.monotonic() - started, 2))


def _no_videos(request: ScoreRequest) -> str:
    if request.given()[0]:
        return ""
    if request.custom:
        return f"no video ({', '.join(SUFFIXES)}) is in {request.videos}"
    return f"no video; `vbench generate --dimension {request.dimension}` makes them"


def _no_weights(request: ScoreRequest, fetch: bool) -> tuple[str, list[str]]:
    """Which of its weights are not there, and how to get them; nothing if all are."""
    files = weight_files.needed(request.described, request.filtered)
    try:
        for file in weight_files.absent(files) if fetch else ():
            weight_files.fetch(file)
        for repository in weight_files.absent_hub(request.described) if fetch else ():
            weight_files.fetch_hub(repository)
    except BenchError as error:
        return str(error), []
    absent, repositories = weight_files.absent(files), weight_files.absent_hub(request.described)
    if not absent and not repositories:
        return "", []
    names = [*map(weight_files.sized, absent), *repositories]
    ways = [*map(weight_files.how_to, absent), *(f"hf download {name}" for name in repositories)]
    instead = ". Or score moving ones too: --no-static-filter (marked in the table)" * request.filtered
    return f"no weights: {', '.join(names)}{instead}", ways


def _no_packages(request: ScoreRequest) -> str:
    """What this environment lacks; another one says it itself."""
    if request.python is not None:
        return ""
    try:
        check_packages(list(request.described.packages), dict(request.described.limits))
    except Missing as error:
        return f"{error}. {_remedy(request)}"
    return ""


def _remedy(request: ScoreRequest) -> str:
    own = request.described.limits or set(request.described.packages) & set(GRIT)
    return OWN if own or request.python is not None else "Install: make scorers (docs/scorers.md)"


def _prepare(request: ScoreRequest, names: Sequence[str]) -> None:
    """The process's directory: links to exactly the videos it is to see, and its request."""
    work = request.workplace.absolute()
    shutil.rmtree(work, ignore_errors=True)
    links = work / "videos"
    links.mkdir(parents=True)
    shown, prompts = _shown(request, names), request.prompts()
    for link, name in shown.items():
        (links / link).symlink_to((request.videos / name).resolve())
    if request.dimension == "subject_consistency":
        # DINO's hubconf.py takes the weights from torch's own cache, whatever path VBench gives it.
        weights = work / "torch" / "hub" / "checkpoints" / "dino_vitbase16_pretrain.pth"
        weights.parent.mkdir(parents=True)
        weights.symlink_to(weight_files.cache_directory() / "dino_model" / weights.name)
    raft = weight_files.cache_directory() / weight_files.RAFT.path
    told = {
        "dimension": request.dimension,
        "videos": str(links),
        "source": str(request.videos.absolute()),
        "count": len(names),
        "work": str(work),
        "full_info": str(suite.FULL_INFO),
        "mode": "custom_input" if request.custom else "vbench_standard",
        "names": shown,
        "prompts": {link: prompts[name] for link, name in shown.items()} if prompts else {},
        "device": devices.kind() if request.device == "auto" else request.device,
        "packages": list(request.described.packages),
        "limits": dict(request.described.limits),
        "root": str(ROOT) if request.python is None else None,
        "raft": str(raft) if request.filtered else None,
        "outcome": str(work / "outcome.json"),
    }
    write_atomically(work / "request.json", json.dumps(told, indent=2, ensure_ascii=False))


def _shown(request: ScoreRequest, names: Sequence[str]) -> dict[str, str]:
    """What the process sees each video as → its name. VBench takes the action from the file's name,
    whatever its prompt is, so custom videos are called by the action there."""
    if not request.custom or request.dimension != "human_action":
        return {name: name for name in names}
    found, prompts = dict[str, str](), request.prompts()
    for n, name in enumerate(names):
        stem, _, suffix = name.rpartition(".")
        prompt = prompts[name] if prompts else re.sub(r"-\d+$", "", stem)
        action = prompt.lower().split("person is ")[-1].strip(" .").replace("/", " ")
        found[f"{action}-{n}.{suffix}"] = name
    return found


def _process(request: ScoreRequest) -> dict[str, Any]:
    """Run the scorer. Returns its outcome, or what can be said of one that left none."""
    work = request.workplace.absolute()
    command = [str(request.python or sys.executable), str(SCORER), str(work / "request.json")]
    environment = os.environ | {
        "VBENCH_CACHE_DIR": str(weight_files.cache_directory()),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    if request.dimension == "subject_consistency":
        environment["TORCH_HOME"] = str(work / "torch")
    try:
        with (work / "output.txt").open("wb") as output:
            ended = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                timeout=request.timeout,
                check=False,
            )
    except subprocess.TimeoutExpired:
        return {"state": "failed", "message": f"stopped after {request.timeout:g} seconds"}
    except OSError as error:
        return {"state": "failed", "message": f"--python {request.python}: {error.strerror}"}
    if (work / "outcome.json").is_file():
        return json.loads((work / "outcome.json").read_text(encoding="utf-8"))
    code = ended.returncode
    why = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    hint = " (out of memory?)" if code == -signal.SIGKILL else ""
    return {"state": "failed", "message": f"its process {why}{hint}", "killed": code == -signal.SIGKILL}
