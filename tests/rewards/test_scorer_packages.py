import sys
import warnings
from pathlib import Path

import pytest
import torch

from bench.base import registry
from bench.base.errors import BenchError
from rewards.shared import compat


@pytest.mark.parametrize(
    ("name", "module", "loader"),
    [("hpsv2", "hpsv2", compat.open_clip), ("imagereward", "ImageReward", compat.image_reward)],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch, tmp_path, name, module, loader
):
    loader.cache_clear()
    for found in [m for m in sys.modules if m.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, found)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BenchError, match=rf"reward {name}: needs the package[\s\S]*pip install --no-deps -r"):
        load_plain(name, tmp_path)
    loader.cache_clear()


def load_plain(name: str, directory: Path):
    cls = registry.load("reward", name)
    return cls(cls.Config(path=directory), torch.device("cpu"))


def test_image_reward_leaves_transformers_and_warnings_as_they_were():
    import transformers.modeling_utils as modeling

    before = set(vars(modeling)), set(vars(modeling.PreTrainedModel)), list(warnings.filters)
    for found in [m for m in sys.modules if m.partition(".")[0] == "ImageReward"]:
        del sys.modules[found]
    compat.image_reward.cache_clear()
    compat.image_reward()
    assert (set(vars(modeling)), set(vars(modeling.PreTrainedModel)), list(warnings.filters)) == before
    assert "ImageReward.ReFL" not in sys.modules
