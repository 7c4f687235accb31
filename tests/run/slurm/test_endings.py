"""How cells end on a real SLURM, each in its own way, and what gets them going again."""

import json
import subprocess
from pathlib import Path

import pytest

from bench.base.layers import dump_yaml
from bench.run.slurm.status import ACTIVE
from bench.run.store import ResultsDir
from tests.run.slurm.sweeps import jobs, profile, state, states, step, submit, until
from tests.support.running import DOTS, bench, cell, command, environment, numbers, status

WAYS = ("error", "kill", "memory", "freeze")


def experiment(directory: Path, *how: str) -> Path:
    """One cell that is well, and one for each way to fail at first."""
    runs = [{"settings": {"broken": {"how": one, "once": str(directory / one)}}} for one in how]
    path = directory / f"{'-'.join(how)}.yaml"
    tree = {"methods": ["broken"], "model": str(DOTS), "runs": [*runs, {"methods": ["push"]}]}
    path.write_text(dump_yaml(tree))
    return path


def ways(out: Path) -> dict[str, str]:
    """How it fails → the cell's id."""
    found = {}
    for one in ResultsDir(out).cells():
        training = one.config().training
        if training is not None and training.method.name == "broken":
            found[str(training.method.config["how"])] = one.id
    return found


@pytest.mark.slow
def test_every_ending_has_its_own_state_and_retry_completes_those_alone(
    cluster: None, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    send = ("submit", "--profile", profile(tmp_path), "--out", out, "--max-parallel", 3, "--config")
    assert bench(*send, experiment(tmp_path, *WAYS[:3])).returncode == 0
    # SLURM warns up to 60 s before its limit: of one minute a busy machine would have nothing left.
    once = ("--with", "time=2m", "--with", "requeue=false", "--wait")
    short = bench(*send, experiment(tmp_path, "freeze"), *once)
    assert "1 cell sent in 1 array" in short.stdout and short.returncode == 1, short.stdout + short.stderr
    until(lambda: not any(one["state"] in ACTIVE for one in states(out).values()))
    found, cells = states(out), ways(out)
    assert {how: found[cells[how]]["state"] for how in WAYS} == {
        "error": "failed",
        "kill": "killed",
        "memory": "out of memory",
        "freeze": "timeout",
    }
    assert all(one["state"] == "done" for name, one in found.items() if name not in cells.values())
    directories = {how: ResultsDir(out).cell(name) for how, name in cells.items()}
    assert "out of luck" in (directories["error"].path / "traceback.txt").read_text()
    assert "Nothing is known of this model's size" in status(directories["memory"])["message"]
    assert "memory limit" in status(directories["memory"])["message"]
    before = {one.id: numbers(one) for one in ResultsDir(out).cells() if one.id.startswith("push")}
    failed = bench("retry", out, "--wait", "--with", "time=5m")
    assert failed.returncode == 0, failed.stdout + failed.stderr
    assert sorted(jobs(out)[-1]) == sorted(cells[how] for how in ("error", "kill", "memory"))
    late = bench("retry", out, "--timeout", "--wait", "--with", "time=5m")
    assert late.returncode == 0, late.stdout + late.stderr
    assert list(jobs(out)[-1]) == [cells["freeze"]]
    assert {one["state"] for one in states(out).values()} == {"done"}
    assert {one.id: numbers(one) for one in ResultsDir(out).cells() if one.id in before} == before
    whole = numbers(directories["error"])
    assert all(numbers(directory)[:2] == whole[:2] for directory in directories.values())
    assert [row["step"] for row in whole[0]] == [1, 2, 3, 4, 5, 6]
    nothing = bench("retry", out)
    assert "no cell" in nothing.stdout and nothing.returncode == 0


@pytest.mark.slow
def test_preempted_cell_is_queued_again_and_ends_in_the_numbers_of_an_undisturbed_one(
    cluster: None, tmp_path: Path
) -> None:
    arguments = ("--methods", "push", "--steps", "30")
    slowly = ("--set", "push.pause=1")
    by = profile(tmp_path, partition="low", time="30m", options={"exclusive": True}, max_parallel=1)
    assert submit(tmp_path / "out", by, *arguments, *slowly).returncode == 0
    until(lambda: step(tmp_path / "out", "push") > 3)
    place = json.loads((cell(tmp_path / "out", "push").path / "job.json").read_text())
    job = place["job"]  # it has its node alone, so no test beside this one keeps the other job waiting
    high = ["sbatch", "-p", "high", "--exclusive", "-w", place["node"], "--mem=100", "-o", "/dev/null"]
    subprocess.run([*high, "--wrap", "sleep 1"], check=True, capture_output=True)
    until(lambda: state(tmp_path / "out", "push") == "preempted")
    (waiting,) = [one for one in states(tmp_path / "out").values() if one["cell"].startswith("push")]
    assert waiting["state"] in ("queued", "starting", "running") and 3 < waiting["step"] < 30
    until(lambda: state(tmp_path / "out", "push") == "done")
    place = json.loads((cell(tmp_path / "out", "push").path / "job.json").read_text())
    assert place["job"] == job and place["restarts"] >= 1  # other tests may preempt it, too
    bench("run", "--in-process", "--no-report", "--model", DOTS, "--out", tmp_path / "whole", *arguments)
    assert numbers(cell(tmp_path / "out", "push")) == numbers(cell(tmp_path / "whole", "push"))


@pytest.mark.slow
def test_cancelled_cells_say_so_and_go_on_where_they_stopped(cluster: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("--methods", "push", "--steps", "30", "--seeds", "0,1")
    submit(out, profile(tmp_path), *arguments, "--set", "push.pause=1", "--max-parallel", 1)
    until(lambda: step(out, "push-dots-brightness-s0") > 2)
    cancelled = bench("cancel", out)
    assert cancelled.returncode == 0, cancelled.stdout + cancelled.stderr
    assert {one["state"] for name, one in states(out).items() if name.startswith("push")} == {"cancelled"}
    assert 2 < status(cell(out, "push-dots-brightness-s0"))["step"] < 30
    again = bench("retry", out, "--all", "--wait", "--with", "max_parallel=2")
    assert again.returncode == 0, again.stdout + again.stderr
    bench("run", "--in-process", "--no-report", "--model", DOTS, "--out", tmp_path / "whole", *arguments)
    for seed in ("s0", "s1"):
        prefix = f"push-dots-brightness-{seed}"
        assert numbers(cell(out, prefix)) == numbers(cell(tmp_path / "whole", prefix))


@pytest.mark.slow
def test_request_that_slurm_refuses_is_told_in_its_words_and_leaves_the_cells_free(
    cluster: None, tmp_path: Path
) -> None:
    by = profile(tmp_path, partition="nowhere")
    done = submit(tmp_path / "out", by, "--methods", "push", "--steps", "2")
    assert done.returncode == 2
    assert "invalid partition specified: nowhere" in done.stderr
    assert not list(tmp_path.glob("out/cells/*/claim.json"))
    impossible = submit(
        tmp_path / "out",
        by,
        "--methods",
        "push",
        "--steps",
        "2",
        "--with",
        "partition=main",
        "--with",
        "nodes=4",
    )
    assert "SLURM" in impossible.stdout + impossible.stderr
    subprocess.run(command("cancel", tmp_path / "out"), env=environment(), check=False)
