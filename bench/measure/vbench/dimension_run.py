"""One dimension scored in a process of its own: what it needs, its request, how it ended.

OUT/scores/ holds `DIMENSION_eval_results.json` in VBench's own format for every dimension that has a score,
`status/DIMENSION.json` for all that were asked for, and `work/DIMENSION/` with the request and what the
process printed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.base.strict import Strict
from bench.measure.vbench import fetching, record, suite
from bench.measure.vbench.dimensions import GRIT, Dimension
from bench.measure.vbench.worker import Missing, check_packages

SUFFIXES = (".mp4", ".gif", ".jpg", ".png")  # that VBench takes in custom mode
WORKER = Path(__file__).with_name("worker.py")
ROOT = Path(__file__).parents[3]
OWN = "It needs an environment of its own (docs/vbench.md), named by --python"


class Status(Strict):
    """How a dimension stands.

    videos: that were given; scored: that VBench has a score of; expected: of the full suite, None for custom
    videos. ways: commands that get missing weights. partial: why the score is not the official one; empty if
    it is. fingerprint: of what was scored. killed: its process was, perhaps for its memory.
    """

    state: Literal["done", "missing", "failed"]
    message: str = ""
    ways: tuple[str, ...] = ()
    score: float | None = None
    videos: int = 0
    scored: int = 0
    expected: int | None = None
    partial: str = ""
    fingerprint: str = ""
    seconds: float = 0.0
    killed: bool = False


@dataclass(frozen=True)
class Cell:
    """One dimension over one directory of videos.

    python: that runs it. prompts: of custom videos, by file name. static_filter: for flickering on the suite.
    """

    dimension: Dimension
    videos: Path
    scores: Path
    custom: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"
    python: Path | None = None
    static_filter: bool = True
    timeout: float | None = None

    @property
    def result(self) -> Path:
        """VBench's result file."""
        return self.scores / f"{self.dimension.name}_eval_results.json"

    @property
    def work(self) -> Path:
        """The process's directory."""
        return self.scores / "work" / self.dimension.name

    @property
    def filtered(self) -> bool:
        """Whether static videos are chosen first."""
        return self.static_filter and not self.custom and self.dimension.name == "temporal_flickering"

    def given(self) -> tuple[list[str], int | None]:
        """Names of the videos that will be scored, and how many the full suite has."""
        if self.custom:
            return sorted(p.name for p in self.videos.iterdir() if p.suffix.lower() in SUFFIXES), None
        found, expected = suite.present(self.videos, self.dimension)
        if self.dimension.name == "temporal_flickering" and not self.filtered:
            found = [video for video in found if video.number < 5]  # VBench looks at no others
            expected //= 5
        return [video.name for video in found], expected

    def fingerprint(self, names: Sequence[str]) -> str:
        """A digest of what is scored: names, sizes and times of the videos, and how they are scored."""
        digest = hashlib.sha256(json.dumps([self.filtered, self.custom, dict(self.prompts)]).encode())
        for name in names:
            stat = (self.videos / name).stat()
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]

    def missing(self, fetch: bool) -> Status | None:
        """The status that says what it lacks: videos, packages, weights. None if it can be scored.

        fetch: download weights that are not here.
        """
        names, _ = self.given()
        lacking, ways = self._no_weights(fetch)
        unmet = [text for text in (self._no_videos(names), self._no_packages(), lacking) if text]
        if not unmet:
            return None
        return Status(state="missing", message="\n".join(unmet), ways=tuple(ways), **self._common(names))

    def _common(self, names: Sequence[str]) -> dict[str, Any]:
        """What every status says."""
        _, expected = self.given()
        return {
            "videos": len(names),
            "expected": expected,
            "partial": self.partial(),
            "fingerprint": self.fingerprint(names),
        }

    def run(self, fetch: bool) -> Status:
        """Score it. Never raises for what is missing or goes wrong in the process: the status says it.

        A score of before is there until the process starts.
        """
        lacking = self.missing(fetch)
        if lacking is not None:
            return lacking
        names, _ = self.given()
        common = self._common(names)
        self._prepare(names)
        started = time.monotonic()
        self.result.unlink(missing_ok=True)
        outcome = self._process()
        if outcome["state"] == "missing":
            outcome["message"] += f". {self._remedy()}"
        if outcome["state"] == "failed":
            outcome["message"] += f" (its output: {self.work / 'output.txt'})"
        if outcome["state"] == "done":
            results = {self.dimension.name: outcome.pop("results")}
            write_atomically(self.result, json.dumps(results, indent=4, ensure_ascii=False) + "\n")
        shutil.rmtree(self.work / "static", ignore_errors=True)
        return Status(**outcome, **common, seconds=round(time.monotonic() - started, 2))

    def partial(self) -> str:
        """Why a score of these is not the official one; empty if it is."""
        names, expected = self.given()
        if expected is None:
            return "custom videos"
        found = [f"{len(names)} of the suite's {expected} videos"] if len(names) < expected else []
        if self.dimension.name == "temporal_flickering" and not self.filtered:
            found.append("without the static filter")
        if trained := record.trained_note(self.videos):
            found.append(trained)
        return ", ".join(found)

    def _no_videos(self, names: Sequence[str]) -> str:
        if names:
            return ""
        if self.custom:
            return f"no video ({', '.join(SUFFIXES)}) is in {self.videos}"
        return f"no video; `vbench generate --dimension {self.dimension.name}` makes them"

    def _no_weights(self, fetch: bool) -> tuple[str, list[str]]:
        """Which of its weights are not there, and how to get them; nothing if all are."""
        files = fetching.needed(self.dimension, self.filtered)
        try:
            for file in fetching.absent(files) if fetch else ():
                fetching.fetch(file)
            for repository in fetching.absent_hub(self.dimension) if fetch else ():
                fetching.fetch_hub(repository)
        except BenchError as error:
            return str(error), []
        lacking, repositories = fetching.absent(files), fetching.absent_hub(self.dimension)
        ways = [*map(fetching.how_to, lacking), *(f"hf download {name}" for name in repositories)]
        names = [fetching.sized(file) for file in lacking] + repositories
        if not names:
            return "", []
        instead = ". Or score moving ones too: --no-static-filter (marked in the table)" * self.filtered
        return f"no weights: {', '.join(names)}{instead}", ways

    def _no_packages(self) -> str:
        """What this environment lacks; another one says it itself."""
        if self.python is not None:
            return ""
        try:
            check_packages(list(self.dimension.packages), dict(self.dimension.limits))
        except Missing as error:
            return f"{error}. {self._remedy()}"
        return ""

    def _remedy(self) -> str:
        own = self.dimension.limits or set(self.dimension.packages) & set(GRIT)
        return OWN if own or self.python is not None else "Install: make scorers (docs/scorers.md)"

    def _prepare(self, names: Sequence[str]) -> None:
        """The process's directory: links to exactly the videos it is to see, and its request."""
        shutil.rmtree(self.work, ignore_errors=True)
        links = self.work / "videos"
        links.mkdir(parents=True)
        shown = self._shown(names)
        for link, name in shown.items():
            (links / link).symlink_to((self.videos / name).resolve())
        if self.dimension.name == "subject_consistency":
            # DINO's hubconf.py takes the weights from torch's own cache, whatever path VBench gives it.
            weights = self.work / "torch" / "hub" / "checkpoints" / "dino_vitbase16_pretrain.pth"
            weights.parent.mkdir(parents=True)
            weights.symlink_to(fetching.cache_directory() / "dino_model" / weights.name)
        raft = fetching.cache_directory() / fetching.RAFT.path
        request = {
            "dimension": self.dimension.name,
            "videos": str(links.absolute()),
            "source": str(self.videos.absolute()),
            "count": len(names),
            "work": str(self.work.absolute()),
            "full_info": str(suite.FULL_INFO),
            "mode": "custom_input" if self.custom else "vbench_standard",
            "names": shown,
            "prompts": {link: self.prompts[name] for link, name in shown.items()} if self.prompts else {},
            "device": self.device,
            "packages": list(self.dimension.packages),
            "limits": dict(self.dimension.limits),
            "root": str(ROOT) if self.python is None else None,
            "raft": str(raft) if self.filtered else None,
            "outcome": str((self.work / "outcome.json").absolute()),
        }
        write_atomically(self.work / "request.json", json.dumps(request, indent=2, ensure_ascii=False))

    def _shown(self, names: Sequence[str]) -> dict[str, str]:
        """What the process sees each video as → its name. VBench takes the action from the file's name,
        whatever its prompt is, so custom videos are called by the action there."""
        if not self.custom or self.dimension.name != "human_action":
            return {name: name for name in names}
        found: dict[str, str] = {}
        for n, name in enumerate(names):
            stem, _, suffix = name.rpartition(".")
            prompt = self.prompts[name] if self.prompts else re.sub(r"-\d+$", "", stem)
            action = prompt.lower().split("person is ")[-1].strip(" .").replace("/", " ")
            found[f"{action}-{n}.{suffix}"] = name
        return found

    def _process(self) -> dict[str, Any]:
        """Run the worker. Returns its outcome, or what can be said of one that left none."""
        command = [
            str(self.python or sys.executable),
            str(WORKER),
            str((self.work / "request.json").absolute()),
        ]
        environment = os.environ | {
            "VBENCH_CACHE_DIR": str(fetching.cache_directory()),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
        }
        if self.dimension.name == "subject_consistency":
            environment["TORCH_HOME"] = str((self.work / "torch").absolute())
        log = self.work / "output.txt"
        try:
            with log.open("wb") as output:
                ended = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    timeout=self.timeout,
                    check=False,
                )
        except subprocess.TimeoutExpired:
            return {"state": "failed", "message": f"stopped after {self.timeout:g} seconds"}
        except OSError as error:
            return {"state": "failed", "message": f"--python {self.python}: {error.strerror}"}
        outcome = self.work / "outcome.json"
        if outcome.is_file():
            return json.loads(outcome.read_text(encoding="utf-8"))
        code = ended.returncode
        why = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        message = f"its process {why}{hint}"
        return {"state": "failed", "message": message, "killed": code == -signal.SIGKILL}
