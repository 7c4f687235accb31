from pathlib import Path

import pytest

from bench.measure.vbench import generate
from tests.measure.vbench.toy import VideoToy


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of weights."""
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> VideoToy:
    """Every model is the toy."""
    toy = VideoToy()
    monkeypatch.setattr(generate, "load_chain", lambda config, device: toy)
    return toy
