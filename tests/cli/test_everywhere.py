"""What is the same for every command: --version, --quiet, --verbose."""

import io
import os
import warnings
from pathlib import Path

import pytest
import typer.main
from rich.console import Console

import bench
from bench.base import console
from bench.cli.main import app
from bench.run.progress import tell_settings, watcher
from tests.cli.test_options import commands
from tests.support.running import here, plan_dots


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command says for all that follow is taken back."""
    for name in (console.VARIABLE, *console.LIBRARIES):
        monkeypatch.setenv(name, "")


def test_version_names_the_commit_and_torch() -> None:
    done = here("--version")
    assert done.returncode == 0
    assert done.stdout.startswith(f"bench {bench.__version__}")
    assert "torch " in done.stdout and done.stdout.count("\n") == 1


def test_every_command_can_be_quiet_and_verbose() -> None:
    group = typer.main.get_command(app)
    for names in commands(group):
        command = group
        for name in names:
            command = command.commands[name]  # type: ignore[attr-defined]
        options = {option for parameter in command.params for option in parameter.opts}
        assert command.hidden or options >= {"--quiet", "--verbose"}, names


def test_both_at_once_are_a_mistake() -> None:
    done = here("list", "--quiet", "--verbose")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: say one of --quiet and --verbose\n"


def test_quiet_leaves_the_result_and_says_nothing_on_the_way(tmp_path: Path, plugin: None) -> None:
    plan_dots(tmp_path)
    words = ("verify", tmp_path)
    usual = here(*words)
    assert "1 of 2: " in usual.stdout and usual.stderr.startswith("… verify")
    quiet = here(*words, "--quiet")
    assert quiet.stdout == "2 directories examined: nothing is damaged\n" and quiet.stderr == ""
    assert "nothing is called" in here("describe", "no such thing", "--quiet").stderr


def test_quiet_runs_are_not_watched_and_verbose_ones_show_settings(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    works = plan_dots(tmp_path)

    def told() -> str:
        stream = io.StringIO()
        with watcher(Console(file=stream), len(works)) as watching:
            for work in works:
                watching.started(work)
        tell_settings(works)
        return stream.getvalue() + capsys.readouterr().err

    assert "started" in told()
    monkeypatch.setenv(console.VARIABLE, "quiet")
    assert told() == ""
    monkeypatch.setenv(console.VARIABLE, "verbose")
    assert "started" in (text := told()) and "strength:" in text and works[0].id in text


def test_verbose_reaches_the_processes_that_are_started_and_their_libraries() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        console.speak("verbose")
        assert warnings.filters[0][0] == "default"
    console.speak(None)
    assert console.verbose() and not console.quiet()
    assert [os.environ[name] for name in console.LIBRARIES] == ["info", "info"]
