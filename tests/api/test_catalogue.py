"""What can be named, and rooms that can be called."""

import importlib
import inspect
from dataclasses import replace
from types import ModuleType
from typing import Any, cast

import pandas as pd
import pytest

import bench
from bench import api
from bench.base import registry


def test_methods_say_what_they_need() -> None:
    found = bench.methods()
    assert found.loc["rlr", "needs_reward_gradient"]
    assert not found.loc["ddpo", "needs_reward_gradient"]
    assert not found.loc["rlr-ho", "needs_reward_gradient"]  # a preset without the first-order term
    assert found.loc["rlr-ho", "base"] == "rlr"
    assert not found.loc["doodl", "trains"]
    assert not found.loc["full_bp", "biased"]


def test_plugins_are_named_and_what_cannot_be_used_says_so(
    plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = registry.entries("method")
    broken = replace(entries["push"], problem="its file is empty")
    monkeypatch.setitem(entries, "push", broken)
    found = bench.methods()
    assert found.loc["leaning", "plugin"] == broken.plugin
    assert found.loc["push", "summary"] == "cannot be used: its file is empty"
    assert pd.isna(found.loc["push", "biased"])


def test_rewards_and_models() -> None:
    rewards, models = bench.rewards(), bench.models()
    assert not rewards.loc["jpeg", "differentiable"]
    assert rewards.loc["motion", "media"] == "video"
    assert (models.loc["tiny", "reward"], models.loc["tiny", "family"]) == ("clip", "image")
    assert models["steps"].dtype == "Int64"


@pytest.mark.parametrize("name", ["run", "report", "models"])
def test_a_room_with_the_name_of_a_function_is_called_as_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = cast(Any, importlib.import_module(f"bench.{name}"))
    function = getattr(api, name)
    assert getattr(bench, name) is room
    assert isinstance(cast(object, room), ModuleType)
    assert inspect.signature(room) == inspect.signature(function)
    assert inspect.getdoc(room) == inspect.getdoc(function)
    monkeypatch.setattr(api, name, lambda *words, **options: (words, options))
    assert room(1, x=2) == ((1,), {"x": 2})
