import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.run.environment import git_state
from bench.run.slurm import snapshot
from bench.run.slurm.submit import _environment
from bench.run.store import ResultsDir
from tests.support.running import ROOT

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkout that a sweep would be sent from, in a repository of its own."""
    root = tmp_path / "checkout"
    for name in ("bench", "methods", "rewards", "configs"):
        (root / name / "deep").mkdir(parents=True)
        (root / name / "deep" / "file.py").write_text(f"NAME = {name!r}\n")
        (root / name / "__pycache__").mkdir()
        (root / name / "__pycache__" / "file.pyc").write_bytes(os.urandom(8))
    (root / "bench" / "__init__.py").touch()
    (root / ".gitignore").write_text("__pycache__/\n")
    identity = ("-c", "user.name=n", "-c", "user.email=e")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "first")):
        subprocess.run(["git", *command], cwd=root, check=True)
    monkeypatch.setattr(bench, "__file__", str(root / "bench" / "__init__.py"))
    monkeypatch.setattr(snapshot, "config_dir", lambda: root / "configs")
    return root


def files(folder: Path) -> dict[str, bytes]:
    """Everything in it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_copy_is_the_packages_as_they_are_without_byte_code(checkout: Path, tmp_path: Path) -> None:
    (checkout / "methods" / "new.py").write_text("uncommitted = True\n")
    (checkout / "notes.txt").touch()
    code, _ = snapshot.take(ResultsDir(tmp_path / "out"))
    expected = {
        name: data
        for name, data in files(checkout).items()
        if "__pycache__" not in name and name.partition("/")[0] in ("bench", "methods", "rewards", "configs")
    }
    found = files(code)
    del found["snapshot.json"]
    assert found == expected
    assert "methods/new.py" in found


def test_same_code_is_copied_once_and_a_change_gives_another_copy(checkout: Path, tmp_path: Path) -> None:
    results = ResultsDir(tmp_path / "out")
    first, content = snapshot.take(results)
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert snapshot.take(results) == (first, content)
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    assert first.name == content["digest"]
    (checkout / "rewards" / "deep" / "file.py").write_text("NAME = 'other'\n")
    second, _ = snapshot.take(results)
    (checkout / "configs" / "deep" / "file.py").rename(checkout / "configs" / "deep" / "renamed.py")
    third, _ = snapshot.take(results)
    assert len({first, second, third}) == 3
    assert (first / "rewards" / "deep" / "file.py").read_text() == "NAME = 'rewards'\n"


def test_copy_says_its_commit_and_whether_files_differed(checkout: Path, tmp_path: Path) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True
    ).stdout.strip()
    clean, content = snapshot.take(ResultsDir(tmp_path / "out"))
    assert content["git"] == {"commit": commit, "dirty": False}
    assert git_state(clean) == {"commit": commit, "dirty": False}
    (checkout / "bench" / "deep" / "file.py").write_text("changed = True\n")
    dirty, _ = snapshot.take(ResultsDir(tmp_path / "out"))
    assert git_state(dirty) == {"commit": commit, "dirty": True}
    shutil.rmtree(checkout / ".git")
    assert git_state(dirty) == {"commit": commit, "dirty": True}


def _take_at_once(out: Path, ready: Callable[[], int]) -> None:
    ready()
    code, _ = snapshot.take(ResultsDir(out))
    os._exit(0 if (code / "snapshot.json").is_file() else 1)


@pytest.mark.slow
def test_several_submitters_at_once_share_one_copy(checkout: Path, tmp_path: Path) -> None:
    for n in range(5):
        ready = FORK.Barrier(4)
        out = tmp_path / f"out{n}"
        processes = [FORK.Process(target=_take_at_once, args=(out, ready.wait)) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 4
        assert len(list((out / "slurm" / "code").iterdir())) == 1


@pytest.mark.slow
def test_job_runs_the_copy_although_it_starts_in_a_checkout(tmp_path: Path) -> None:
    code, content = snapshot.take(ResultsDir(tmp_path / "it's here"))
    program = (
        "import bench, methods, rewards, json; from bench.base import layers;"
        "from bench.run import environment; from pathlib import Path;"
        "print(json.dumps([bench.__file__, methods.__file__, rewards.__file__, str(layers.config_dir()),"
        " environment.git_state(Path(bench.__file__).parent.parent)]))"
    )
    script = "\n".join([*_environment(code), f'"{sys.executable}" -c "{program}"'])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    *places, state = json.loads(done.stdout)
    assert all(place.startswith(f"{code}/") for place in places), places
    assert state == content["git"]


def test_edits_after_the_copy_do_not_reach_it(checkout: Path, tmp_path: Path) -> None:
    code, _ = snapshot.take(ResultsDir(tmp_path / "out"))
    before: dict[str, Any] = files(code)
    for file in checkout.rglob("*.py"):
        file.write_text("edited = True\n")
    assert files(code) == before
