import signal
from collections.abc import Iterator

import pytest

from bench import registry
from tests.running import PLUGIN

# A shell that starts the suite in the background makes it ignore Ctrl-C, and what it runs inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin of tests/plugin, installed in this process."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    registry.entries.cache_clear()
    yield
    registry.entries.cache_clear()
