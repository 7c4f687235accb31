"""What `bench clean` removes, and what it leaves."""

from pathlib import Path

import pytest

from bench.base.layers import dump_yaml
from bench.experiment.search import FIRST_SEED
from bench.run import claims
from bench.run.checkpoints import Checkpoints
from bench.run.clean import Kind, find, remove
from bench.run.store import CellDir, ResultsDir, WorkState
from tests.support.running import here, plan_dots

FAILED, DONE = WorkState.FAILED, WorkState.DONE


def planned(
    out: Path, *settings: str, state: WorkState | None = DONE, seed: int = 0
) -> tuple[CellDir, CellDir]:
    """The base model's cell and one of `push`; both end in a state, unless that is None."""
    cells = [work.directory for work in plan_dots(out, *settings, steps=8, seeds=str(seed))]
    if state is not None:
        for cell in cells:
            cell.write_status(state, 8, message="it broke" if state is FAILED else None)
    base, push = ([ResultsDir(out).cell(c.id) for c in cells] * 2)[-2:]
    return base, push


def ask_for(out: Path, *cells: CellDir) -> None:
    """Make these the cells of the directory's last request."""
    (out / "experiment.yaml").write_text(dump_yaml({"cells": [cell.id for cell in cells]}))


def found(out: Path) -> dict[str, list[str]]:
    """Ids by kind."""
    removable = find(ResultsDir(out)).removable
    return {kind: [one.cell.id for one in removable if one.kind is kind] for kind in Kind}


def nothing() -> dict[str, list[str]]:
    return {kind: [] for kind in Kind}


def test_only_the_newest_checkpoint_of_a_finished_cell_stays_and_all_other_files(
    tmp_path: Path, plugin: None
) -> None:
    _, done = planned(tmp_path)
    _, going = planned(tmp_path, state=None, seed=1)
    for cell in (done, going):
        for step in (4, 8):
            Checkpoints(cell.path / "checkpoint").write(step, b"parameters %d" % step)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert found(tmp_path) == nothing() | {Kind.CHECKPOINTS: [done.id]}
    assert remove(find(ResultsDir(tmp_path)).removable) == []
    (gone,) = before - {path for path in tmp_path.rglob("*") if path.is_file()}
    assert gone.parent == done.path / "checkpoint" and gone.name.startswith("00000004-")
    assert found(tmp_path) == nothing() and claims.read(done) is None


def test_an_old_checkpoint_stays_where_the_newest_is_damaged(tmp_path: Path, plugin: None) -> None:
    _, done = planned(tmp_path)
    checkpoints = Checkpoints(done.path / "checkpoint")
    checkpoints.write(4, b"whole")
    checkpoints.write(8, b"torn later")
    max(checkpoints.path.glob("*.pt")).write_bytes(b"torn")
    assert found(tmp_path) == nothing()


def test_failed_cells_go_as_a_whole_unless_somebody_works_on_them(tmp_path: Path, plugin: None) -> None:
    base, first = planned(tmp_path, state=FAILED)
    _, second = planned(tmp_path, state=FAILED, seed=1)
    _, stopped = planned(tmp_path, state=WorkState.TIMEOUT, seed=2)
    base.write_status(DONE)
    assert claims.take(second, claims.of_this_process(), lambda *_: True) is None
    findings = find(ResultsDir(tmp_path))
    assert [one.cell.id for one in findings.removable] == [first.id]
    assert [cell.id for cell in findings.in_use] == [second.id]
    with first.locked():
        assert [one.cell.id for one in remove(findings.removable)] == [first.id]
    assert first.status().message == "it broke" and claims.read(first) is None
    assert remove(findings.removable) == []
    assert {cell.id for cell in ResultsDir(tmp_path).cells()} == {base.id, second.id, stopped.id}


def test_a_failed_cell_that_ended_well_since_it_was_found_stays(tmp_path: Path, plugin: None) -> None:
    base, failed = planned(tmp_path, state=FAILED)
    base.write_status(DONE)
    findings = find(ResultsDir(tmp_path))
    failed.write_status(DONE, 8)  # another process ran it while clean asked
    assert [one.cell.id for one in remove(findings.removable)] == [failed.id]
    assert failed.status().state is DONE and claims.read(failed) is None


def test_a_record_without_cells_supersedes_nothing(tmp_path: Path, plugin: None) -> None:
    planned(tmp_path)
    (tmp_path / "experiment.yaml").write_text("command: bench run\n")
    assert found(tmp_path) == nothing()


def test_a_cell_is_superseded_by_one_with_other_settings_that_is_done(tmp_path: Path, plugin: None) -> None:
    base, old = planned(tmp_path)
    _, new = planned(tmp_path, "push.strength=2", state=None)
    _, other = planned(tmp_path, seed=1)
    assert found(tmp_path) == nothing()  # without a request on record
    ask_for(tmp_path, base, new)
    assert found(tmp_path) == nothing()
    new.write_status(DONE, 8)
    assert found(tmp_path) == nothing() | {Kind.SUPERSEDED: [old.id]}
    ask_for(tmp_path, base, old, new)
    assert found(tmp_path) == nothing()
    assert other.path.is_dir()


def test_a_base_model_stays_as_long_as_a_cell_is_measured_against_it(tmp_path: Path, plugin: None) -> None:
    old_base, old = planned(tmp_path, "eval.seed=1")
    _, kept = planned(tmp_path, "eval.seed=1", seed=1)
    base, new = planned(tmp_path)
    assert base.id != old_base.id
    ask_for(tmp_path, base, new)
    assert found(tmp_path)[Kind.SUPERSEDED] == [old.id]
    ask_for(tmp_path, base, new, planned(tmp_path, seed=1)[1])
    assert found(tmp_path)[Kind.SUPERSEDED] == sorted([old_base.id, old.id, kept.id])


def test_trials_of_tuning_stay_however_they_ended(tmp_path: Path, plugin: None) -> None:
    base, first = planned(tmp_path, seed=FIRST_SEED)
    _, second = planned(tmp_path, "push.strength=2", seed=FIRST_SEED)
    base.write_status(DONE)
    ask_for(tmp_path, base, second)
    assert found(tmp_path) == nothing()
    first.write_status(FAILED)
    assert found(tmp_path) == nothing()


def test_it_asks_and_refuses_where_there_is_nobody_to_ask(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, old = planned(tmp_path)
    _, new = planned(tmp_path, "push.strength=2")
    _, failed = planned(tmp_path, state=FAILED, seed=1)
    base.write_status(DONE)
    ask_for(tmp_path, base, new)
    words = ("clean", tmp_path)
    refused = here(*words)
    assert refused.returncode == 2 and "add --yes, or --dry-run" in refused.stderr
    assert failed.id in refused.stdout and "superseded cells: 1" in refused.stdout
    looked = here(*words, "--dry-run")
    assert looked.returncode == 0 and looked.stdout == refused.stdout
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda text: False)
    assert (declined := here(*words)).returncode == 1 and "nothing was removed" in declined.stdout
    assert failed.path.is_dir()
    assert here(*words, "--yes").returncode == 0
    assert not failed.path.exists() and old.path.is_dir()
    assert here(*words, "--superseded", "--yes").returncode == 0 and not old.path.exists()
    assert here(*words).stdout == "nothing to remove\n"
