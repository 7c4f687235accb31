"""Profiles that were stopped, killed or damaged go on to the sums of an uninterrupted one, bit for bit."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from bench.measure.gradients import worker
from bench.measure.gradients.plan import unfinished
from bench.measure.gradients.profiles import read_profiles
from bench.measure.gradients.store import ProbeDir, probes
from bench.run import launch
from bench.run.process import Exit, HowToRun, Outcome
from bench.run.store import WorkState
from bench.run.work import Work
from tests.measure.gradients.running import drawn, gradients, planned, probe, sums, two_prompts
from tests.support.running import PATIENCE, PAUSE, ROOT, environment

pytestmark = pytest.mark.slow

# By method: what makes its gradient depend on what it has learnt from earlier batches.
STATEFUL = {
    "leaning": (),
    "ddpo": ("ddpo.min_count=2",),
    "rlr": ("rlr.h=1", "rlr.start=norms", "rlr.temperature=0.01"),
    "rlr-cv": ("rlr-cv.drawn=2",),
}
LONGER = "model.steps=4"  # more than one block


@pytest.mark.parametrize("method", STATEFUL)
def test_profile_that_goes_on_has_the_sums_of_one_that_never_stopped(
    method: str, tmp_path: Path, plugin: None
) -> None:
    prompts, settings = two_prompts(tmp_path), (LONGER, *STATEFUL[method])
    for out, counts in {"whole": (11,), "parts": (1, 6, 11)}.items():
        for draws in counts:
            ends = drawn(tmp_path / out, *settings, methods=method, prompts=prompts, draws=draws)
            assert ends == [Exit.DONE, Exit.DONE]
    for base in ("full_bp", method.partition("-")[0]):
        assert sums(probe(tmp_path / "parts", base)) == sums(probe(tmp_path / "whole", base))


@pytest.mark.parametrize("method", STATEFUL)
def test_methods_of_that_test_would_show_a_lost_state(
    method: str, tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, settings = two_prompts(tmp_path), (LONGER, *STATEFUL[method])
    options = {"methods": method, "prompts": prompts}
    drawn(tmp_path / "whole", *settings, draws=11, **options)
    drawn(tmp_path / "parts", *settings, draws=6, **options)
    directory = probe(tmp_path / "parts", method.partition("-")[0])
    saved, _ = directory.restore()
    assert saved is not None and saved.method
    directory.save(saved.moments, {})
    drawn(tmp_path / "parts", *settings, draws=11, **options)
    whole = probe(tmp_path / "whole", method.partition("-")[0])
    assert sums(directory)[0] != sums(whole)[0]


@pytest.mark.parametrize(("when", "draws", "least"), [("writes", 3, 25), ("moments", 40, 2)])
def test_killed_profile_ends_in_the_same_sums(
    when: str, draws: int, least: int, tmp_path: Path, plugin: None
) -> None:
    pause = "leaning.pause=0.03" if when == "moments" else "leaning.pause=0"
    (_, work), _ = launch.prepare(unfinished(planned(tmp_path, pause, methods="leaning"), False), force=False)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.measure.gradients.kill_everywhere",
            str(work.directory.path),
            str(draws),
            when,
        ],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-2]) >= least


def test_damaged_checkpoint_falls_back_and_two_damaged_ones_fail_clearly(
    tmp_path: Path, plugin: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SAVE_SECONDS", 0.0)
    drawn(tmp_path / "whole", methods="leaning", draws=9)
    drawn(tmp_path / "out", methods="leaning", draws=6)
    directory = probe(tmp_path / "out", "leaning")
    newest = max((directory.path / "checkpoint").iterdir())
    newest.write_bytes(newest.read_bytes()[:-7])
    assert drawn(tmp_path / "out", methods="leaning", draws=9) == [Exit.DONE, Exit.DONE]
    assert f"{newest} is damaged: falling back to the checkpoint before it" in capsys.readouterr().out
    assert sums(directory) == sums(probe(tmp_path / "whole", "leaning"))
    for file in (directory.path / "checkpoint").iterdir():
        file.write_bytes(b"damaged")
    assert drawn(tmp_path / "out", methods="leaning", draws=12) == [Exit.DONE, Exit.FAILED]
    assert "all checkpoints are damaged" in str(directory.status().message)


def test_sums_of_another_version_are_one_clear_message(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn(tmp_path, draws=2)
    directory = probe(tmp_path, "truncated_bp")
    saved, _ = directory.restore()
    assert saved is not None
    old = saved.moments.payload()
    del old["occupancy"]
    monkeypatch.setattr(saved.moments, "payload", lambda: old)
    directory.save(saved.moments, {})
    assert drawn(tmp_path, draws=3) == [Exit.DONE, Exit.FAILED]
    message = str(directory.status().message)
    assert "another version" in message and "occupancy" in message and "--force" in message


def test_interrupt_writes_tables_of_what_there_is_and_the_same_command_goes_on(
    tmp_path: Path, plugin: None
) -> None:
    out, options = tmp_path / "out", {"methods": "leaning,truncated_bp", "draws": 120}
    more = ("--draws", 120, "--methods", options["methods"], "--jobs", 1)
    slowly = environment() | {PAUSE: "0.5"}
    process = subprocess.Popen(gradients(out, *more), env=slowly, stdout=subprocess.PIPE, text=True)
    while not list(out.glob("gradients/leaning*/draws.jsonl")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, output
    assert f"stopped. Go on with:\n  python -m bench gradients --model {more[0]}"[:50] in output
    assert f"--out {out}" in output.partition("Go on with:")[2]
    assert set(pd.read_csv(out / "gradients.csv")["method"]) == {"full_bp", "leaning"}
    interrupted = probe(out, "leaning").status()
    assert interrupted.state is WorkState.PREEMPTED
    assert 0 < interrupted.step < 120
    assert drawn(out, **options) == [Exit.DONE, Exit.DONE]  # full_bp had all its draws
    drawn(tmp_path / "whole", **options)
    for name in ("full_bp", "leaning", "truncated_bp"):
        assert sums(probe(out, name)) == sums(probe(tmp_path / "whole", name))


def test_interrupt_before_a_process_listens_leaves_its_profile_preempted(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting:
        """The user presses Ctrl-C as soon as something has started."""

        def started(self, work: Work) -> None:
            raise KeyboardInterrupt

        def tick(self) -> None: ...

        def ended(self, outcome: Outcome) -> None: ...

        def stopping(self) -> None: ...

    monkeypatch.setattr(HowToRun, "command", lambda self, work: ["sleep", "60"])
    todo, _ = launch.prepare(unfinished(planned(tmp_path), force=False), force=False)
    outcomes, interrupted = launch.run(todo, 1, lambda *_: HowToRun(), Interrupting(), "test")
    assert interrupted
    assert [(o.status.state, o.status.message) for o in outcomes] == [(WorkState.PREEMPTED, "asked to stop")]


@pytest.mark.silent
def test_budget_that_loading_alone_would_use_up_still_gives_a_draw(tmp_path: Path, plugin: None) -> None:
    (work, _), _ = launch.prepare(unfinished(planned(tmp_path), force=False), force=False)
    directory = ProbeDir(work.directory.path)
    assert worker.run_probe(directory, 0.0, None, None) is Exit.DONE
    assert directory.status().step == 1
    assert [one.moments.draws for one in read_profiles(probes(tmp_path))[0]] == [1]
