"""Shipped rewards fetch a commit from the hub, as far as one is known; another source has none of it."""

from __future__ import annotations

import re

import pytest

from bench.base import registry
from bench.data.need import needs_of
from bench.experiment.ingredients import reward_ingredient, reward_list

UNKNOWN = ("THUDM/ImageReward", "microsoft/xclip", "hustvl/yolos", "MCG-NJU/videomae")  # docs/rewards.md


@pytest.mark.parametrize("name", reward_list())
def test_hub_files_are_pinned_where_a_commit_is_known(name: str) -> None:
    for need in reward_ingredient(name).needs:
        if need.kind == "hub":
            pinned = re.fullmatch("[0-9a-f]{40}", need.revision or "") is not None
            assert pinned != need.place.startswith(UNKNOWN), need


def test_another_source_or_revision_is_taken_as_it_is() -> None:
    config = registry.load("reward", "pickscore").Config
    other, own = config(source="hub:org/other", processor="hub:org/p"), config(revision="main")
    assert [need.revision for need in needs_of(other, "reward pickscore", "pickscore")] == [None, None]
    assert needs_of(own, "reward pickscore", "pickscore")[0].revision == "main"
