"""SLURM's programs as small scripts that say what a test tells them to, and submissions made by hand."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.run import claims
from bench.run.slurm.cluster import Profile
from bench.run.slurm.record import FOLDER, Submission
from bench.run.store import ResultsDir
from bench.run.work import CellWork

SUBMISSION = "20260102-030405-abcdef"
ARRAY = "77"
# submitit gives the batch script's path; each job gets the next number, and the script is kept
SBATCH = """\
n=77; while [ -e {folder}/$n.sh ]; do n=$((n+1)); done
for last; do :; done
while IFS= read -r line; do echo "$line"; done < "$last" > {folder}/$n.sh
echo "Submitted batch job $n"
"""


class Programs:
    """A folder of scripts that is the whole PATH: what is not there is not installed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "bin"
        self.folder.mkdir()
        monkeypatch.setenv("PATH", str(self.folder))

    def say(self, name: str, text: str = "", error: str = "", code: int = 0) -> None:
        """Make a program that prints this. Builtins of the shell alone, because PATH has nothing else."""
        self.script(name, f"printf %s {shlex.quote(text)}\nprintf %s {shlex.quote(error)} >&2\nexit {code}\n")

    def script(self, name: str, lines: str) -> None:
        """Make a program from shell lines; it also notes how it was called."""
        file = self.folder / name
        file.write_text(f'#!/bin/sh\necho "$*" >> {shlex.quote(str(file))}.calls\n{lines}')
        file.chmod(0o755)

    def queue(self, *lines: str) -> None:
        """What squeue says: `id|state|node|reason|end` each."""
        self.say("squeue", "".join(line + "\n" for line in lines))

    def calls(self, name: str) -> list[str]:
        """The arguments of every call so far."""
        file = self.folder / f"{name}.calls"
        return file.read_text().splitlines() if file.exists() else []


def submitted(out: Path, todo: Sequence[CellWork], sent: bool = True, token: str = SUBMISSION) -> Submission:
    """Claim planned cells for a submission and record it: the n-th is array task `77_n`."""
    claim = claims.of_this_process(token)
    for work in todo:
        assert claims.take(work.directory, claim, claims_nothing) is None
    found = Submission(
        name=token,
        command="bench submit",
        profile=Profile().model_dump(mode="json"),
        code={},
        cells=tuple(work.id for work in todo),
        jobs={work.id: f"{ARRAY}_{n}" for n, work in enumerate(todo)} if sent else {},
        arrays=(ARRAY,) if sent else (),
        sent=sent,
    )
    found.write(ResultsDir(out))
    return found


def claims_nothing(*_: object) -> bool:
    """Every claim's owner is dead."""
    return False


def write_log(out: Path, job: str, text: str) -> Path:
    """What a job printed."""
    file = out / FOLDER / SUBMISSION / f"{job}_0_log.err"
    file.write_text(text)
    return file
