import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from bench.base.errors import BenchError
from bench.base.layers import (
    Layers,
    config_dir,
    dump_yaml,
    load_config,
    parse_setting,
    parse_yaml,
    read_yaml,
    shipped,
)
from bench.base.strict import Strict
from bench.experiment.files import ModelFile, Request
from bench.experiment.method_files import blocks, shipped_config
from bench.experiment.settings import TrainConfig
from bench.models.config import ModelConfig


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5E3", 5e3),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("-.inf", float("-inf")),
        ("010", 10),
        ("-3", -3),
        ("10:30", "10:30"),
        ("yes", "yes"),
        ("off", "off"),
        ("No", "No"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ("[1, 2e0, x]", [1, 2.0, "x"]),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = parse_yaml(text, "test")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "value", ["1e-4", "yes", "null", "010", "10:30", "1.", "", "a: b", 1e-5, 3, None, True, "é"]
)
def test_what_is_written_reads_back_the_same(value: object) -> None:
    assert parse_yaml(dump_yaml({"key": value}), "test") == {"key": value}


def test_repeated_key_is_an_error_with_its_place() -> None:
    with pytest.raises(BenchError, match=r"x\.yaml:3:3: key 'lr' appears twice"):
        parse_yaml("train:\n  lr: 1\n  lr: 2\n", "x.yaml")


def test_broken_yaml_names_file_and_line() -> None:
    with pytest.raises(BenchError, match=r"x\.yaml:3:1: "):
        parse_yaml("a: 1\nb: [\n", "x.yaml")


def test_unreadable_file_and_list_at_the_top_are_errors(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(BenchError, match="expected a mapping at the top"):
        read_yaml(tmp_path / "list.yaml")


def test_typo_names_origin_key_and_closest_known() -> None:
    layers = Layers().add("configs/x.yaml", "train", {"stpes": 3})
    with pytest.raises(BenchError) as caught:
        layers.build(TrainConfig)
    assert str(caught.value) == "configs/x.yaml: train.stpes: unknown key. Did you mean 'steps'?"


def test_typo_in_a_nested_section_suggests_that_sections_keys() -> None:
    layers = Layers().add("configs/x.yaml", "model", {"lora": {"rnk": 3}})
    with pytest.raises(
        BenchError, match=r"configs/x\.yaml: model\.lora\.rnk: unknown key\. Did you mean 'rank'\?"
    ):
        layers.build(ModelConfig)


def test_wrong_value_is_blamed_on_the_layer_that_set_it() -> None:
    layers = (
        Layers()
        .add("a.yaml", "train", {"lr": 1e-3, "steps": 5})
        .add("--set train.lr=-1", "train", {"lr": -1})
    )
    with pytest.raises(BenchError) as caught:
        layers.build(TrainConfig)
    assert str(caught.value) == "--set train.lr=-1: train.lr: input should be greater than 0 (got -1)"


def test_all_mistakes_are_told_at_once() -> None:
    layers = Layers().add("a.yaml", "train", {"lr": "fast", "setps": 5})
    with pytest.raises(BenchError) as caught:
        layers.build(TrainConfig)
    assert len(str(caught.value).splitlines()) == 2


def test_upper_layers_replace_values_and_merge_mappings() -> None:
    layers = Layers().add("a", "model", {"steps": 9, "lora": {"rank": 4, "alpha": 2}})
    layers.add("b", "model", {"lora": {"rank": 8}})
    config = layers.build(ModelConfig)
    assert (config.steps, config.lora.rank, config.lora.alpha) == (9, 8, 2)


def test_layers_leave_their_sources_untouched() -> None:
    source = {"lora": {"rank": 4}}
    Layers().add("a", "model", source).add("b", "model", {"lora": {"rank": 8}})
    assert source == {"lora": {"rank": 4}}


def test_setting_is_nested_by_its_dots_and_typed_as_yaml() -> None:
    assert parse_setting("rlr.train.lr=1e-3") == ("--set rlr.train.lr=1e-3", {"rlr": {"train": {"lr": 1e-3}}})


@pytest.mark.parametrize("text", ["rlr", "rlr=3", "=3", "rlr.=3", ".h=3"])
def test_malformed_setting_is_an_error(text: str) -> None:
    with pytest.raises(BenchError, match=r"expected SECTION\.KEY=VALUE"):
        parse_setting(text)


@pytest.mark.parametrize("name", shipped("models"))
def test_shipped_model_files_are_valid(name: str) -> None:
    file = load_config(shipped("models")[name], ModelFile)
    model = Layers().add(name, "model", file.model).build(ModelConfig)
    if (model.source or "").startswith("hub:"):
        assert re.fullmatch("[0-9a-f]{40}", model.revision or ""), "pin a commit"
    Layers().add(name, "train", file.train).build(TrainConfig)


@pytest.mark.parametrize("name", shipped("experiments"))
def test_shipped_experiments_are_valid(name: str) -> None:
    load_config(shipped("experiments")[name], Request)


@pytest.mark.parametrize("name", shipped("methods"))
def test_shipped_method_files_have_valid_blocks(name: str) -> None:
    for model in shipped("models"):
        shipped_config(name, model)
        for block in blocks(name, model):
            Layers().add(name, block.name, block.settings.train).build(TrainConfig)


def test_configs_are_found_from_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert (config_dir() / "experiments" / "demo.yaml").is_file()


def test_a_value_that_fits_none_of_several_kinds_is_one_line() -> None:
    class Frames(Strict):
        frames: Literal["all"] | Annotated[int, Field(ge=1)] = "all"

    with pytest.raises(BenchError) as caught:
        Layers().add("--set a.frames=0", "a", {"frames": 0}).build(Frames)
    kinds = "input should be 'all', or input should be greater than or equal to 1"
    assert str(caught.value) == f"--set a.frames=0: a.frames: {kinds} (got 0)"
