"""What `list` and `describe` say."""

from pathlib import Path

import pytest

from tests.support.running import bench, here
from tests.support.watched import watched


@pytest.mark.slow
def test_list_names_everything_and_imports_no_large_package(tmp_path: Path) -> None:
    done, record = watched(tmp_path / "record.json", "list")
    assert done.returncode == 0, done.stderr
    assert record.heavy() == set()
    assert len(record.modules) < 700
    assert record.started == record.connected == record.waits == []
    for name in (
        "rlr",
        "ddpo",
        "alignprop",
        "drtune",
        "adjoint_matching",
        "vader",
        "zo",
        "truncated_bp",
        "full_bp",
        "clip",
        "jpeg",
        "tiny",
        "demo",
    ):
        assert f" {name} " in done.stdout


@pytest.mark.slow
def test_describe_shows_documentation_settings_and_shipped_values() -> None:
    done = bench("describe", "rlr")
    assert done.returncode == 0
    assert "RLR" in done.stdout
    assert "--set rlr.KEY=VALUE" in done.stdout
    assert "configs/methods/rlr.yaml" in done.stdout


@pytest.mark.parametrize("name", ["train", "eval", "model", "experiment", "tiny", "tiny-flow", "demo"])
def test_describe_knows_sections_models_and_experiments(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    from bench.cli.describe import show

    show(Console(width=200), name)
    assert name in capsys.readouterr().out


@pytest.mark.slow
def test_describe_of_an_unknown_name_suggests_the_closest() -> None:
    done = bench("describe", "rlrr")
    assert done.returncode == 2
    assert done.stderr.startswith("error: nothing is called 'rlrr'. Did you mean 'rlr'?")


@pytest.mark.silent
def test_description_of_a_preset_shows_its_own_values() -> None:
    told = here("describe", "rlr-h3").stdout
    row = next(line for line in told.splitlines() if line.startswith("│ h "))
    assert row.split("│")[3].strip() == "3"


@pytest.mark.silent
@pytest.mark.parametrize("name", ["v100x8", "sd14", "demo"])
def test_everything_that_list_names_can_be_described(name: str) -> None:
    if name in here("list").stdout:
        assert here("describe", name).returncode == 0
