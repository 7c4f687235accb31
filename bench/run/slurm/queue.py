"""Whether claimed cells are still being worked on: the claims' owners, and SLURM's jobs."""

from __future__ import annotations

from pathlib import Path

from bench.run import claims
from bench.run.claims import Claim
from bench.run.slurm import record, scheduler
from bench.run.slurm.record import Submission
from bench.run.slurm.scheduler import Job
from bench.run.store import ResultsDir, WorkDir


class Queue:
    """The jobs behind the claims of one results directory, as of now: asks SLURM once for each submission."""

    def __init__(self, results: ResultsDir | None = None) -> None:
        """results: if None, that of the first cell asked about."""
        self.results = results
        self._read: dict[str, Submission] = {}
        self._jobs: dict[str, Job] = {}
        self._asked: set[str] = set()

    def submission(self, directory: WorkDir, claim: Claim) -> Submission | None:
        """The submission that a claim belongs to; None if it is not recorded yet."""
        if self.results is None:
            self.results = ResultsDir(directory.path.parent.parent)
        path = self.results.path / record.FOLDER / claim.token / record.FILE
        if claim.token not in self._read and path.exists():
            self._read[claim.token] = record.read(path)
        return self._read.get(claim.token)

    def job_id(self, directory: WorkDir, claim: Claim) -> str | None:
        """The job that a claimed cell waits for or runs in; None if there is none, or not yet."""
        found = self.submission(directory, claim) if claim.submission else None
        return None if found is None else found.jobs.get(directory.id)

    @property
    def reachable(self) -> bool:
        """Whether SLURM can be asked from here."""
        return scheduler.available()

    def job(self, job_id: str) -> Job | None:
        """What SLURM knows of a job; None if nothing."""
        if job_id not in self._asked:
            ids = {job for found in self._read.values() for job in found.jobs.values()} | {job_id}
            self._jobs |= scheduler.ask(ids - self._asked)
            self._asked |= ids
        return self._jobs.get(job_id)

    def alive(self, directory: WorkDir, claim: Claim, age: float) -> bool:
        """Whether somebody works on the cell or is going to. Where SLURM cannot be asked: yes.

        A submission that has sent no job yet is as alive as the process that makes it.
        """
        job_id = self.job_id(directory, claim)
        if job_id is None:
            return claims.owner_lives(claim, age)
        if not self.reachable:
            return True
        job = self.job(job_id)
        return job is not None and not job.over

    def describe(self, directory: WorkDir, claim: Claim) -> str:
        """Who has a claimed cell, in a sentence."""
        job = self.job_id(directory, claim)
        if job is None:
            doing = "is being submitted" if claim.submission else "is run"
            return f"{doing} by process {claim.pid} on {claim.host}"
        where = Path("…") if self.results is None else self.results.path
        unknown = "" if self.reachable else ". SLURM cannot be asked from here whether it still runs"
        return f"has SLURM job {job}: see `python -m bench status {where}`{unknown}"
