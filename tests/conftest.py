from collections.abc import Iterator

import pytest

from bench import registry
from tests.running import PLUGIN


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin of tests/plugin, installed in this process."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    registry.entries.cache_clear()
    yield
    registry.entries.cache_clear()
