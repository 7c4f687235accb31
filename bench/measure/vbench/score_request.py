"""One dimension to score over one directory of videos: what `vbench score` asks for, dimension by dimension.

`OUT/scores/` holds `DIMENSION_eval_results.json` in VBench's own format for every dimension that has a score,
`status/DIMENSION.json` for all that were asked for, and `work/DIMENSION/` with what the process was given and
what it printed. No torch here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from bench.base.errors import BenchError
from bench.base.strict import Strict
from bench.data.prompts import records
from bench.measure.vbench import record, suite
from bench.measure.vbench.dimension_status import DimensionStatus, status_file, status_of, write_status
from bench.measure.vbench.dimensions import DIMENSIONS, USUAL, Dimension

SUFFIXES = (".mp4", ".gif", ".jpg", ".png")  # that VBench takes in custom mode
FLICKERING = "temporal_flickering"


class ScoreRequest(Strict):
    """The options of `vbench score` for one dimension, which are config.yaml of its job; `work` stands first.

    out: the directory that has scores/. python: the interpreter that scores, None for this one.
    static_filter: for flickering on the suite. timeout: seconds. Paths of a job are absolute, as it may be
    sent again from elsewhere.
    """

    work: Literal["vbench score"] = "vbench score"
    threads: int = 1
    videos: Path
    out: Path
    dimension: str
    custom: bool = False
    prompts_file: Path | None = None
    device: str = "auto"
    python: Path | None = None
    static_filter: bool = True
    timeout: float | None = None

    @property
    def id(self) -> str:
        """The dimension's name, which the job has too."""
        return self.dimension

    @property
    def label(self) -> str:
        """The dimension's name."""
        return self.dimension

    @property
    def described(self) -> Dimension:
        """What is known of the dimension."""
        return DIMENSIONS[self.dimension]

    @property
    def scores(self) -> Path:
        """The directory of scores."""
        return self.out / "scores"

    @property
    def result(self) -> Path:
        """The path of the file that VBench itself writes."""
        return self.scores / f"{self.dimension}_eval_results.json"

    @property
    def workplace(self) -> Path:
        """The directory in which the scoring process runs."""
        return self.scores / "work" / self.dimension

    @property
    def filtered(self) -> bool:
        """Whether static videos are chosen first."""
        return self.static_filter and not self.custom and self.dimension == FLICKERING

    def prompts(self) -> dict[str, str]:
        """File name → prompt of custom videos; empty without a file of prompts. Raises BenchError."""
        return {} if self.prompts_file is None else _prompts(self.prompts_file, self.videos)

    def absolute(self) -> ScoreRequest:
        """The same with absolute paths."""
        paths = {
            "videos": self.videos,
            "out": self.out,
            "prompts_file": self.prompts_file,
            "python": self.python,
        }
        return self.model_copy(update={key: path and path.absolute() for key, path in paths.items()})

    def given(self) -> tuple[list[str], int | None]:
        """Names of the videos that will be scored, and how many the full suite has."""
        if self.custom:
            return custom_videos(self.videos), None
        found, expected = suite.present(self.videos, self.described)
        if self.dimension == FLICKERING and not self.filtered:
            found = [video for video in found if video.number < USUAL]  # VBench looks at no others
            expected //= USUAL
        return [video.name for video in found], expected

    def fingerprint(self, names: Sequence[str]) -> str:
        """A digest of what is scored: names, sizes and times of the videos, and how they are scored."""
        digest = hashlib.sha256(json.dumps([self.filtered, self.custom, self.prompts()]).encode())
        for name in names:
            stat = (self.videos / name).stat()
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]

    def partial(self) -> str:
        """Why a score of these videos is not the official one; empty if it is."""
        names, expected = self.given()
        if expected is None:
            return "custom videos"
        found = [f"{len(names)} of the suite's {expected} videos"] if len(names) < expected else []
        if self.dimension == FLICKERING and not self.filtered:
            found.append("without the static filter")
        if trained := record.trained_note(self.videos):
            found.append(trained)
        return ", ".join(found)

    def facts(self) -> dict[str, Any]:
        """What every status of these videos says."""
        names, expected = self.given()
        fingerprint = self.fingerprint(names)
        return {
            "videos": len(names),
            "expected": expected,
            "partial": self.partial(),
            "fingerprint": fingerprint,
        }

    def finished(self) -> bool:
        """Whether there is a score of these very videos. Raises BenchError for a damaged status."""
        status = status_of(self.scores, self.dimension)
        if status is None or status.state != "done" or not self.result.is_file():
            return False
        return status.fingerprint == self.fingerprint(self.given()[0])

    def settle(self, status: DimensionStatus) -> None:
        """Put on record how it ended. A score of these very videos outlives that something is missing now;
        one of other videos does not."""
        if status.state == "missing" and self.finished():
            return
        if status.state != "done":
            self.result.unlink(missing_ok=True)
        write_status(self.scores, self.dimension, status)

    def forget(self) -> None:
        """Remove the score and its status, so that it is computed again."""
        status_file(self.scores, self.dimension).unlink(missing_ok=True)
        self.result.unlink(missing_ok=True)


def custom_videos(directory: Path) -> list[str]:
    """Names of all files that VBench takes for videos."""
    return sorted(path.name for path in directory.iterdir() if path.suffix.lower() in SUFFIXES)


def _prompts(path: Path, videos: Path) -> dict[str, str]:
    """File name → prompt, from a JSON object. Its keys are paths, whole or from the directory of the videos.

    Raises BenchError if one of the videos is not in it, or in it twice.
    """
    where = f"--prompts-file {path}"
    tree = records.parse_json(where, records.text_of(path))
    if not isinstance(tree, dict) or not all(isinstance(v, str) and v.strip() for v in tree.values()):
        raise BenchError(f'{where}: expected an object such as {{"a.mp4": "a cat"}}, with no empty prompt')
    found: dict[str, str] = {}
    for key, prompt in tree.items():
        name = _name_in(videos, key)
        if name in found:
            raise BenchError(f"{where}: '{key}' is {name} again, which has a prompt already: keep one")
        found[name] = prompt
    lacking = [name for name in custom_videos(videos) if name not in found]
    if lacking:
        said = f"its keys are like '{next(iter(tree))}'" if tree else "it is empty"
        names = ", ".join(lacking[:3])
        raise BenchError(f"{where}: no prompt for {names}: {said}, and should be names of files in {videos}")
    return found


def _name_in(videos: Path, key: str) -> str:
    """The file's name, of a path that leads into the directory of the videos; others as they are."""
    place = videos / key  # an absolute path stays as it is
    return place.name if place.parent.resolve() == videos.resolve() else key
