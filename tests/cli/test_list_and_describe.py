"""What `list` and `describe` say."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.cli import catalogue
from bench.cli import describe as describing
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
        assert name in done.stdout.split()


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
def test_everything_that_list_names_can_be_described() -> None:
    for item in catalogue.items():
        assert describing.describe(item.name).name == item.name


def listed(*words: str) -> list[dict[str, Any]]:
    """What `bench list --json` says, and nothing else on standard output."""
    done = here("list", *words, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def names(*words: str) -> set[str]:
    return {item["name"] for item in listed(*words)}


def test_list_is_chosen_from_by_kind_part_of_a_name_and_gradient() -> None:
    assert {item["kind"] for item in listed()} == set(catalogue.KINDS)
    assert {item["kind"] for item in listed("methods", "rewards")} == {"methods", "rewards"}
    assert names("models", "TINY") == {"tiny", "tiny-flow", "tiny-video"}
    assert names("rlr-h", "methods") >= {"rlr-h0", "rlr-ho"} and names("v100") == {"v100x8"}
    assert "jpeg" not in names("rewards", "--gradient") and "clip" in names("rewards", "--gradient")
    assert {"ddpo", "zo"} <= names("methods", "--no-gradient")
    assert names("methods", "--gradient").isdisjoint(names("methods", "--no-gradient"))
    assert {item["kind"] for item in listed("--no-gradient")} == {"methods", "rewards"}
    gradients = {item["name"]: item["gradient"] for item in listed("methods", "models")}
    assert (gradients["full_bp"], gradients["ddpo"], gradients["tiny"]) == (True, False, None)


def test_list_of_what_is_here_has_what_ships_and_not_what_has_to_be_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert {"tiny", "clip", "emoji"} <= names("--here")
    assert names("--here").isdisjoint({"sd14", "ddpo", "demo"})


def test_list_is_names_alone_unless_it_is_asked_to_be_long() -> None:
    short, long = here("list", "methods").stdout, here("list", "methods", "--long").stdout
    assert "random-direction" in short.split() and "random-direction" in long.split()
    summary = next(item["summary"] for item in listed("random-direction") if item["kind"] == "methods")
    assert summary.split()[-1] in long.split() and len(short.splitlines()) < len(long.splitlines())


def test_list_of_an_unknown_word_suggests_the_closest() -> None:
    done = here("list", "mehtods")
    assert done.returncode == 2 and "Did you mean 'methods'?" in done.stderr


@pytest.mark.parametrize("name", ["rlr-h3", "jpeg", "train", "sampler", "tiny", "emoji", "emoji-clip"])
def test_description_as_json_has_what_is_shown(name: str) -> None:
    done = here("describe", name, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["name"] == name and set(found) == set(asdict(describing.describe(name)))
    assert found["settings"] or found["files"] or found["documentation"]
    if name == "rlr-h3":
        assert next(row["default"] for row in found["settings"] if row["key"] == "h") == "3"
        assert found["files"][1]["file"] == "configs/methods/rlr-h3.yaml"


def test_a_kind_is_one_whatever_its_capitals() -> None:
    assert here("list", "Methods").stdout == here("list", "methods").stdout
