"""JSON Schemas of the YAML files: what ships fits them, and a typo does not."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bench.base.layers import config_dir, profiles, read_yaml, shipped
from bench.cli.schema import File, of
from tests.support.running import here

FOLDERS = {
    File.EXPERIMENT: "experiments",
    File.WORKLOAD: "workloads",
    File.MODEL: "models",
    File.METHOD: "methods",
    File.REWARD: "rewards",
}
NAMED = (File.METHOD, File.REWARD)


def files(kind: File) -> dict[str, Path]:
    return profiles() if kind is File.PROFILE else shipped(FOLDERS[kind])


def mistakes(schema: dict[str, Any], value: Any) -> list[str]:
    found = Draft202012Validator(schema).iter_errors(value)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


@pytest.mark.parametrize("kind", File)
def test_every_file_that_ships_fits_its_schema(kind: File) -> None:
    assert files(kind)
    made: dict[str, dict[str, Any]] = {}
    for name, path in files(kind).items():
        own = name if kind in NAMED else ""
        if own not in made:
            made[own] = json.loads(json.dumps(of(kind, own)))
            Draft202012Validator.check_schema(made[own])
        assert mistakes(made[own], read_yaml(path)) == [], path


def test_every_folder_of_yaml_files_has_a_schema() -> None:
    assert {path.name for path in config_dir().iterdir() if path.is_dir()} == set(FOLDERS.values())


TYPOS: list[tuple[File, str, dict[str, Any]]] = [
    (File.EXPERIMENT, "", {"methdos": ["rlr"]}),
    (File.EXPERIMENT, "", {"methods": "rlr"}),
    (File.EXPERIMENT, "", {"settings": {"train": {"stpes": 3}}}),
    (File.EXPERIMENT, "", {"settings": {"rlrr": {"h": 3}}}),
    (File.EXPERIMENT, "", {"settings": {"rlr": {"h": -1}}}),
    (File.EXPERIMENT, "", {"settings": {"rlr": {"train": {"stpes": 3}}}}),
    (File.EXPERIMENT, "", {"runs": [{"settings": {"sampler": {"stpes": 3}}}]}),
    (File.EXPERIMENT, "", {"seeds": [-1]}),
    (File.WORKLOAD, "", {"model": "tiny"}),
    (File.MODEL, "", {"model": {"guidnace": 1}}),
    (File.METHOD, "rlr", {"default": {"method": {"hh": 3}}}),
    (File.METHOD, "rlr-h3", {"base": "rlrr"}),
    (File.METHOD, "rlr", {"search": {"h": {"chioce": [1, 2]}}}),
    (File.REWARD, "jpeg", {"qualty": 95}),
    (File.PROFILE, "", {"partitoin": "gpu"}),
    (File.PROFILE, "", {"methods": {"rlr": {"memory": "80GB"}}}),
]


def test_a_typo_does_not_fit() -> None:
    schemas = {(kind, name): of(kind, name) for kind, name, _ in TYPOS}
    assert [tree for kind, name, tree in TYPOS if not mistakes(schemas[kind, name], tree)] == []


def test_what_files_may_say_in_short_fits() -> None:
    short = {
        "model": "tiny",
        "reward": ["clip", "jpeg"],
        "seeds": "0-4",
        "settings": {"train": {"budget": "10m", "graph_budget": "2GB"}, "model": {"lora": {"rank": 4}}},
    }
    assert mistakes(of(File.EXPERIMENT), short) == []
    assert mistakes(of(File.PROFILE), {"time": "12h", "mem": "60GB", "models": {"sd14": {"gpus": 2}}}) == []


def test_the_command_prints_a_schema_and_refuses_what_is_none() -> None:
    done = here("schema", "method", "rlr-h3")
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads(json.dumps(of(File.METHOD, "rlr-h3")))
    assert "want a NAME" in here("schema", "method").stderr
    assert "want a NAME" in here("schema", "experiment", "rlr").stderr
    assert "unknown method 'rlrr'" in here("schema", "method", "rlrr").stderr
