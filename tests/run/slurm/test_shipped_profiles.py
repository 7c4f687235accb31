import re
from pathlib import Path

import pytest

from bench.base.layers import profiles
from bench.run.slurm.cluster import Profile, Resources, load


@pytest.mark.parametrize("name", profiles())
def test_a_shipped_profile_loads(name: str) -> None:
    profile = load(name)
    assert profile.partition is not None
    assert profile.report


def test_profiles_ship_for_the_papers_node_for_newer_ones_and_for_a_workstation() -> None:
    assert {"v100x8", "a100", "h100", "local"} <= profiles().keys()


def test_the_v100_profile_explains_every_key() -> None:
    text = profiles()["v100x8"].read_text()
    named = {found[1] for found in re.finditer(r"^(?:# )?(\w+):", text, re.MULTILINE)}
    assert named >= Profile.model_fields.keys()


def test_the_documentation_has_every_key_of_a_profile_and_no_other() -> None:
    page = (Path(__file__).parents[3] / "docs" / "slurm.md").read_text()
    section = page.split("## Profiles")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert named == Profile.model_fields.keys()
    assert Resources.model_fields.keys() <= named
