import re
import subprocess
from pathlib import Path

import pytest
from rich.console import Console
from submitit.core.utils import DelayedSubmission

from bench.base import devices
from bench.base.errors import BenchError
from bench.run import claims
from bench.run.slurm import record, submit, sweep
from bench.run.slurm.cluster import Profile
from bench.run.slurm.job import CellJob
from bench.run.slurm.submit import Sent
from bench.run.slurm.sweep import SweepRequest
from bench.run.store import ResultsDir, WorkState
from bench.run.tracking import asked
from bench.run.work import CellWork
from tests.run.slurm.fakes import SBATCH, Programs
from tests.support.running import DOTS, command, environment, plan_dots

pytestmark = pytest.mark.slow


@pytest.fixture
def todo(tmp_path: Path, plugin: None) -> list[CellWork]:
    """The base model and `push` with seeds 0, 1, 2."""
    return plan_dots(tmp_path / "out", seeds="0,1,2")


def sent(tmp_path: Path, todo: list[CellWork], **profile: object) -> Sent:
    """Send them."""
    return submit.submit(ResultsDir(tmp_path / "out"), todo, Profile.model_validate(profile), "bench submit")


def script(programs: Programs, job: int) -> dict[str, str]:
    """The options of a job's batch script."""
    text = (programs.folder / f"{job}.sh").read_text()
    return {key: value or "" for key, value in re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.M)}


def test_cells_and_report_are_sent_and_recorded_and_stay_claimed(
    tmp_path: Path, todo: list[CellWork], programs: Programs
) -> None:
    found = sent(tmp_path, todo).submission
    assert found is not None
    assert found.jobs == {work.id: f"77_{n}" for n, work in enumerate(todo)}
    assert (found.arrays, found.report, found.sent) == (("77",), "78", True)
    assert [*record.submissions(ResultsDir(tmp_path / "out")).values()] == [found]
    assert script(programs, 78)["dependency"] == "afterany:77"
    for work in todo:
        held = claims.read(work.directory)
        assert held is not None
        assert (held[0].token, held[0].submission) == (found.name, True)
        assert work.directory.status().state is WorkState.PENDING


def test_profile_reaches_sbatch(tmp_path: Path, todo: list[CellWork], programs: Programs) -> None:
    wanted = {"partition": "gpu", "account": "me", "qos": "high", "constraint": "v100", "gres": "gpu:v100:2"}
    more = {"mem": "4GB", "time": "2h", "warning": 90, "max_parallel": 3, "setup": ["module load cuda"]}
    sent(tmp_path, todo, **wanted, **more, options={"reservation": "spring"}, cpus=3)
    options = script(programs, 77)
    assert wanted.items() <= options.items()
    expected = {"mem": "4096M", "time": "120", "array": "0-3%3", "cpus-per-task": "3", "nodes": "1"}
    assert expected.items() <= options.items()
    assert options["signal"] == "USR2@90"
    assert options["reservation"] == "spring"
    assert "requeue" in options
    text = (programs.folder / "77.sh").read_text()
    assert re.search(r"^srun .* --cpus-per-task=3 ", text, re.M)  # which srun does not take from the job
    assert text.index("module load cuda") < text.index("export PYTHONPATH=") < text.index("srun ")
    report = script(programs, 78)
    assert (report["partition"], report["account"], "gres" in report) == ("gpu", "me", False)


def test_jobs_know_the_gpus_of_the_profile_and_the_device_and_trackers_that_were_asked_for(
    tmp_path: Path, todo: list[CellWork], programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(devices.VARIABLE, "cuda")
    monkeypatch.setattr(asked, "installed", lambda package: True)
    monkeypatch.setenv(asked.VARIABLE, "wandb,mlflow")
    found = sent(tmp_path, todo, gres="gpu:v100:2").submission
    assert found is not None
    folder = tmp_path / "out" / record.FOLDER / found.name
    jobs = [DelayedSubmission.load(file).function for file in folder.glob("77_*_submitted.pkl")]
    told = {(job.gpus, job.device, job.track) for job in jobs if isinstance(job, CellJob)}
    assert told == {(2, "cuda", "wandb,mlflow")}
    assert len(jobs) == len(todo)


@pytest.mark.silent
def test_option_that_is_false_is_left_out_and_all_of_a_nodes_memory_can_be_asked_for(
    tmp_path: Path, todo: list[CellWork], programs: Programs
) -> None:
    sent(tmp_path, todo, mem=0, options={"exclusive": False, "--exclude": "n1", "contiguous": True})
    options = script(programs, 77)
    assert (options["mem"], options["exclude"], options["contiguous"]) == ("0", "n1", "")
    assert "exclusive" not in options


@pytest.mark.silent
def test_batch_that_does_not_divide_among_a_profiles_processes_is_not_sent(
    tmp_path: Path, todo: list[CellWork]
) -> None:
    batch = {work.config.training.train.batch for work in todo if work.config.training is not None}
    assert all(size % 7 for size in batch)
    with pytest.raises(BenchError, match="does not divide among 7 processes"):
        submit.arrays(todo, Profile(processes=7), None, 1000)


def test_second_submission_sends_nothing_and_names_the_jobs(
    tmp_path: Path, todo: list[CellWork], programs: Programs
) -> None:
    sent(tmp_path, todo[:3])
    again = sent(tmp_path, todo[:3])
    assert again.submission is None
    assert [outcome.status.message for outcome in again.busy] == [
        f"it has SLURM job 77_{n}: see `python -m bench status {tmp_path / 'out'}`" for n in range(3)
    ]
    rest = sent(tmp_path, todo)
    assert rest.submission is not None
    assert set(rest.submission.jobs) == {todo[3].id}
    assert len(rest.busy) == 3


def test_refusal_is_sbatchs_own_words_and_gives_the_cells_free(
    tmp_path: Path, todo: list[CellWork], programs: Programs
) -> None:
    programs.say("sbatch", error="sbatch: error: invalid partition specified: gpuu\n", code=1)
    with pytest.raises(BenchError) as error:
        sent(tmp_path, todo)
    assert str(error.value).startswith(
        "SLURM refused the job:\n  sbatch: error: invalid partition specified: gpuu\nChange the profile, or"
    )
    assert "Traceback" not in str(error.value)
    assert [claims.read(work.directory) for work in todo] == [None] * len(todo)


def test_refusal_of_a_later_array_keeps_what_was_sent(
    tmp_path: Path, todo: list[CellWork], programs: Programs
) -> None:
    good = SBATCH.format(folder=programs.folder)
    refused = "echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1\n"
    programs.script("sbatch", f"if [ -e {programs.folder}/77.sh ]; then {refused}fi\n{good}")
    with pytest.raises(BenchError, match=r"QOSMaxSubmitJobPerUserLimit[^$]* 3 cells were sent before: "):
        sent(tmp_path, todo[1:] + todo[:1], methods={"base": {"time": "10m"}})
    assert claims.read(todo[0].directory) is None
    assert all(claims.read(work.directory) for work in todo[1:])
    (found,) = record.submissions(ResultsDir(tmp_path / "out")).values()
    assert set(found.jobs) == {work.id for work in todo[1:]}


def test_fewer_at_once_than_arrays_makes_each_array_wait_for_the_one_before(
    tmp_path: Path, todo: list[CellWork], programs: Programs
) -> None:
    sent(tmp_path, todo, methods={"base": {"time": "10m"}}, max_parallel=1)
    assert "dependency" not in script(programs, 77)
    assert script(programs, 78)["dependency"] == "afterany:77"
    assert script(programs, 79)["dependency"] == "afterany:77:78"


def test_retry_sends_only_what_failed_with_the_last_profile(
    tmp_path: Path, todo: list[CellWork], programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "GLANCE_SECONDS", 0.0)
    sent(tmp_path, todo, mem="2GB", report=False)
    todo[1].directory.write_status(WorkState.FAILED, 1, 1.0, "out of luck")
    todo[2].directory.write_status(WorkState.DONE, 2, 1.0)
    over = (f"77_{n}|COMPLETED||None|2020-01-01" for n in (1, 2))
    programs.queue("77_0|RUNNING|n1|None|N/A", "77_3|PENDING||Priority|N/A", *over)
    asked = SweepRequest(None, ("time=8h",), None, False, False, False)
    assert sweep.retry(Console(width=200), ResultsDir(tmp_path / "out"), "failed", asked) == 0
    newest = [*record.submissions(ResultsDir(tmp_path / "out")).values()]
    assert {cell for found in newest if found.jobs and "78" in str(found.jobs) for cell in found.jobs} == {
        todo[1].id
    }
    assert {"mem": "2048M", "time": "480"}.items() <= script(programs, 78).items()


def test_retry_of_a_directory_that_was_never_sent_asks_for_a_profile(
    tmp_path: Path, todo: list[CellWork], programs: Programs
) -> None:
    todo[0].directory.write_status(WorkState.FAILED, 1, 1.0, "out of luck")
    asked = SweepRequest(None, (), None, False, False, False)
    with pytest.raises(BenchError, match=r"was never submitted to SLURM: name a --profile"):
        sweep.retry(Console(), ResultsDir(tmp_path / "out"), "failed", asked)


@pytest.mark.parametrize(
    "arguments", [("submit", "--profile", "local"), ("run", "--slurm", "local", "--no-report")]
)
def test_without_slurm_it_is_one_message(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        command(*arguments, "--model", DOTS, "--methods", "push", "--out", tmp_path / "out"),
        env=environment() | {"PATH": str(tmp_path / "empty")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: no SLURM on this machine (sbatch and srun are not on the PATH)")
    assert "python -m bench run" in done.stderr
    assert not (tmp_path / "out").exists()


def test_dry_run_shows_the_arrays_where_there_is_no_slurm_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    arguments = ("submit", "--profile", "local", "--dry-run", "--model", DOTS, "--methods", "push")
    done = subprocess.run(
        command(*arguments, "--seeds", "0,1", "--out", tmp_path / "out", "--with", "mem=3GB"),
        env=environment() | {"PATH": str(tmp_path / "empty")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "3 cells in 1 array would be sent" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "3 GiB" in line]
    assert line.split()[:4] == ["3", "2", "main", "1"]
    assert not (tmp_path / "out").exists()
