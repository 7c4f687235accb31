"""Cells → job arrays: claims, groups of equal resources, one array each, then the report's job."""

from __future__ import annotations

import shlex
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from bench.base import devices
from bench.base.errors import BenchError
from bench.run import claims, launch
from bench.run.preflight import check_processes
from bench.run.process import Outcome
from bench.run.slurm import record, scheduler, snapshot
from bench.run.slurm.cluster import Profile, Resources
from bench.run.slurm.job import CellJob, ReportJob
from bench.run.slurm.queue import Queue
from bench.run.slurm.record import Submission
from bench.run.store import ResultsDir
from bench.run.tracking import asked
from bench.run.work import CellWork, Work

NEVER = 10**6  # times that submitit lets a job time out: `CellJob` decides itself
REPORT = Resources(cpus=1, mem=2048, time=30)


@dataclass(frozen=True)
class Array:
    """Cells that ask for the same, and how many of them may run at once."""

    resources: Resources
    todo: list[Work]
    parallel: int
    after: bool = False  # only when the array before has ended


@dataclass(frozen=True)
class Sent:
    """What became of a request: the submission (None: there was nothing to send), and cells others have."""

    submission: Submission | None
    busy: list[Outcome]


def arrays(todo: Sequence[Work], profile: Profile, max_parallel: int | None, largest: int) -> list[Array]:
    """Group cells by what they ask for. max_parallel: of all together; with fewer than there are arrays, one
    array runs after the other."""
    groups: dict[str, tuple[Resources, list[Work]]] = {}
    for work in todo:
        resources = work.resources(profile)
        if isinstance(work, CellWork):
            check_processes([work.config], resources.processes_per_node * resources.nodes)
        key = f"{resources.model_dump_json()} {cpus(resources, work)}"
        groups.setdefault(key, (resources, []))[1].append(work)
    pieces = [
        (resources, found[n : n + largest])
        for resources, found in groups.values()
        for n in range(0, len(found), largest)
    ]
    if max_parallel is None:
        return [Array(resources, found, len(found)) for resources, found in pieces]
    if max_parallel < len(pieces):
        return [Array(resources, found, max_parallel, n > 0) for n, (resources, found) in enumerate(pieces)]
    shares = _shares(max_parallel, [len(found) for _, found in pieces])
    return [Array(resources, found, share) for (resources, found), share in zip(pieces, shares, strict=True)]


def _shares(total: int, sizes: list[int]) -> list[int]:
    """Deal out places one by one to whichever array has the most cells for each of its places."""
    shares = [1] * len(sizes)
    while sum(shares) < min(total, sum(sizes)):
        shares[max(range(len(sizes)), key=lambda n: sizes[n] / shares[n] if sizes[n] > shares[n] else 0)] += 1
    return shares


def cpus(resources: Resources, work: Work) -> int:
    """Cores of a cell on each node. Raises BenchError if the profile gives it fewer than its threads."""
    needed = work.threads * resources.processes_per_node
    if resources.cpus is not None and resources.cpus < work.threads:
        raise BenchError(
            f"{work.id}: runs with {work.threads} threads, and the profile gives it {resources.cpus} cpus"
        )
    return resources.cpus or needed


def submit(
    results: ResultsDir,
    todo: Sequence[Work],
    profile: Profile,
    command_line: str,
    *,
    max_parallel: int | None = None,
    force: bool = False,
) -> Sent:
    """Claim the cells and send them. Raises BenchError; what was sent by then is on record."""
    require_slurm()
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"
    claim = claims.of_this_process(name)
    ready, busy = launch.prepare(todo, force, claim, Queue(results))
    waiting = {work.id: work for work in ready}
    try:
        if not ready:
            return Sent(None, busy)
        code, content = snapshot.take(results)
        submission = Submission(
            name=name,
            command=command_line,
            profile=profile.model_dump(mode="json"),
            code=content,
            cells=tuple(waiting),
        )
        sender = _Sender(results, submission, profile, code)
        for array in arrays(ready, profile, max_parallel or profile.max_parallel, scheduler.largest_array()):
            for cell in sender.send(array):
                del waiting[cell]
        return Sent(sender.finish(), busy)
    finally:
        for work in waiting.values():
            claims.release(work.directory, name)


def require_slurm() -> None:
    """Raise BenchError where there is no SLURM to send to."""
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise BenchError(
            "no SLURM on this machine (sbatch and srun are not on the PATH): submit from a login node of the "
            "cluster, or run the same cells here: python -m bench run. slurm/cluster/start.sh makes a small "
            "SLURM on a workstation, to try sweeps out."
        )


class _Sender:
    """One submission on its way: its record is complete after every array."""

    def __init__(self, results: ResultsDir, submission: Submission, profile: Profile, code: Path) -> None:
        self.results, self.submission, self.profile, self.code = results, submission, profile, code
        self.folder = results.path / record.FOLDER / submission.name
        self.submission.write(results)

    def send(self, array: Array) -> Iterator[str]:
        """One array; yields the cells that SLURM has taken."""
        executor = self._executor(array.resources, cpus(array.resources, array.todo[0]), array)
        jobs = self._sent(executor, [self._cell_job(array.resources, work) for work in array.todo])
        found = dict(zip((work.id for work in array.todo), jobs, strict=True))
        self._update(
            jobs={**self.submission.jobs, **found},
            arrays=(*self.submission.arrays, jobs[0].partition("_")[0]),
        )
        yield from found

    def finish(self) -> Submission:
        """The report's job, if wanted."""
        report = None
        if self.profile.report:
            shape = REPORT.model_copy(update=self.profile.model_dump(include={"partition", "account", "qos"}))
            dependency = "afterany:" + ":".join(self.submission.arrays)
            executor = self._executor(shape, 1, None, dependency)
            (report,) = self._sent(executor, [ReportJob(str(self.results.path.absolute()))])
        self._update(report=report, sent=True)
        return self.submission

    def _update(self, **changes: Any) -> None:
        self.submission = self.submission.model_copy(update=changes)
        self.submission.write(self.results)

    def _cell_job(self, resources: Resources, work: Work) -> CellJob:
        return CellJob(
            directory=str(work.directory.path.absolute()),
            token=self.submission.name,
            command_line=self.submission.command,
            processes=resources.processes_per_node,
            seconds=60 * resources.time,
            warning=self.profile.warning,
            requeue=self.profile.requeue,
            gpus=resources.gpus_per_node,
            device=devices.asked(),
            track=",".join(asked.asked()),
        )

    def _sent(self, executor: SlurmExecutor, jobs: Sequence[Any]) -> list[str]:
        try:
            with executor.batch():
                found = [executor.submit(job) for job in jobs]
        except (FailedJobError, FailedSubmissionError) as error:
            raise BenchError(_refusal(str(error), self.submission, self.results)) from error
        return [job.job_id for job in found]

    def _executor(
        self, resources: Resources, cores: int, array: Array | None, dependency: str | None = None
    ) -> SlurmExecutor:
        profile = self.profile
        after = [] if dependency is None else [dependency]
        if array is not None:
            after += [profile.dependency] if profile.dependency else []
            after += [f"afterany:{self.submission.arrays[-1]}"] if array.after else []
        more: dict[str, Any] = {"kill-on-invalid-dep": "yes"} if after else {}
        more |= {("requeue" if profile.requeue else "no-requeue"): True}
        more |= {name: value for name, value in resources.options.items() if value is not False}
        executor = SlurmExecutor(self.folder, max_num_timeout=NEVER, python=profile.python)
        executor.update_parameters(
            job_name="bench" if array is not None else "bench-report",
            partition=resources.partition,
            account=resources.account,
            qos=resources.qos,
            constraint=resources.constraint,
            nodes=resources.nodes,
            ntasks_per_node=1,
            cpus_per_task=cores,
            gpus_per_node=resources.gpus or None,
            gres=resources.gres,
            mem=None if resources.mem is None else f"{resources.mem}M" if resources.mem else "0",
            time=resources.time,
            signal_delay_s=profile.warning,
            dependency=",".join(after) or None,
            setup=[*profile.setup, *_environment(self.code)],
            array_parallelism=1 if array is None else array.parallel,
            additional_parameters=more,
            srun_args=[
                f"--cpus-per-task={cores}",  # since SLURM 22.05 srun does not take it from the job
                *(["--kill-on-bad-exit=1"] if resources.nodes > 1 else []),
                *profile.srun,
            ],
            wckey=None,
        )
        return executor


def _environment(code: Path) -> list[str]:
    """Shell lines: the snapshot before everything else on Python's path, the directory of work not at all."""
    return [
        f"export PYTHONPATH={shlex.quote(str(code.absolute()))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1",
    ]


def _refusal(error: str, submission: Submission, results: ResultsDir) -> str:
    lines = [line.strip() for line in error.splitlines() if "sbatch: error:" in line or "rror:" in line]
    words = "\n  ".join(dict.fromkeys(lines)) or error.strip().splitlines()[-1]
    sent = len(submission.jobs)
    kept = f" {sent} cells were sent before: python -m bench status {results.path}" if sent else ""
    return f"SLURM refused the job:\n  {words}\nChange the profile, or try --with KEY=VALUE.{kept}"


def show(console: Console, found: Sequence[Array]) -> None:
    """What would be sent."""
    table = Table(title_justify="left", box=None, padding=(0, 1))
    heading = found[0].todo[0].label_heading  # all are of one kind
    columns = ("cells", "at once", "partition", "nodes", "gpus", "cpus", "memory", "time")
    for header in (*columns, heading):
        table.add_column(header, overflow="fold")
    for array in found:
        shape, labels = array.resources, dict.fromkeys(work.label for work in array.todo)
        table.add_row(
            str(len(array.todo)),
            str(array.parallel),
            shape.partition or "(default)",
            str(shape.nodes),
            str(shape.gpus) if shape.gres is None else shape.gres.removeprefix("gpu:"),
            str(cpus(shape, array.todo[0])),
            "(default)" if shape.mem is None else f"{shape.mem / 1024:.3g} GiB" if shape.mem else "all",
            f"{shape.time // 60}:{shape.time % 60:02d}:00",
            ", ".join(labels),
        )
    console.print(table)
