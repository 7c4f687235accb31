"""`bench new`: what it writes works without another edit, and nothing of yours is overwritten."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.base import layers
from bench.base.errors import BenchError
from bench.cli import new
from bench.cli.new import Skeleton
from tests.support.running import DOTS, ROOT, environment


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with a new method and a new reward."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("bench", "methods", "rewards", "configs", "tests", "scripts", "slurm"):
        shutil.copytree(
            ROOT / folder, root / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", root)
    for kind, name in (("method", "my-method"), ("reward", "glow")):
        run(root, "bench", "new", kind, name)
    return root


def run(root: Path, *arguments: object) -> str:
    """A module of that checkout; it must succeed."""
    path = os.pathsep.join((str(root), str(ROOT / "tests" / "plugin")))
    command = [sys.executable, "-m", *map(str, arguments)]
    environ = environment() | {"PYTHONPATH": path}
    ran = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_a_new_method_runs_and_its_tests_and_the_conformance_tests_pass(copy: Path, tmp_path: Path) -> None:
    shown = run(copy, "bench", "list")
    assert "my-method" in shown and "glow" in shown
    run(copy, "bench", "run", *("--model", DOTS, "--steps", 2, "--no-report"), "--out", tmp_path / "results",
        "--methods", "my-method", "--reward", "glow")  # fmt: skip
    files = ("methods/test_conformance.py", "methods/test_my_method.py", "rewards/test_glow.py")
    chosen = ("-v", "-k", "my-method or my_method or glow", *(copy / "tests" / file for file in files))
    passed = run(copy, "pytest", "-p", "no:cacheprovider", *chosen).count(" PASSED ")
    assert passed > 6 and "skipped" not in shown


@pytest.mark.slow
def test_what_is_written_is_in_the_projects_style(copy: Path) -> None:
    written = [path for path in copy.rglob("*.py") if "my_method" in path.name or "glow" in path.name]
    assert len(written) == 4
    run(copy, "ruff", "check", *written)
    run(copy, "ruff", "format", "--check", *written)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ddpo", "there is a 'ddpo' already"),
        ("clip", "there is a 'clip' already"),
        ("train", "there is a 'train' already"),
        ("Mine", "no name for a method"),
        ("1st", "no name for a method"),
        ("class", "no name for a method"),
        ("a b", "no name for a method"),
        ("../x", "no name for a method"),
        ("mine", r"methods.mine\.py is there already, and nothing is overwritten"),
    ],
)
def test_a_name_that_cannot_be_used_writes_nothing(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "mine.py").write_text("of mine")
    with pytest.raises(BenchError, match=message):
        new.write(Skeleton.METHOD, name, tmp_path)
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["of mine"]


def test_an_installed_wheel_refuses_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(new, "config_dir", lambda: tmp_path / "configs")
    with pytest.raises(BenchError, match=r"clone the repository, or make a package of your own"):
        new.checkout()
    monkeypatch.setattr(new, "config_dir", layers.config_dir)
    assert new.checkout() == ROOT
