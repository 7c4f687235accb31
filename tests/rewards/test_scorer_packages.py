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


def test_a_torchvision_of_another_cuda_is_one_message_with_what_to_type(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """torchvision's own words, where it and torch were built for different CUDA."""
    words = "Detected that PyTorch and torchvision were compiled with different CUDA major versions."
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(f"raise RuntimeError({words!r})")
    monkeypatch.syspath_prepend(str(tmp_path))
    for found in [m for m in sys.modules if m.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, found)
    compat.torchvision.cache_clear()
    with pytest.raises(
        BenchError, match=r"torchvision was built for another CUDA .*\n.*make scorers TORCH_INDEX="
    ):
        compat.torchvision()
    compat.torchvision.cache_clear()
