import os
import signal
from collections.abc import Iterator

import pytest
import torch

from bench import registry
from tests.running import PLUGIN

# A shell that starts the suite in the background makes it ignore Ctrl-C, and what it runs inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Workers of pytest-xdist fill the cores; several threads each would wait for one another, many times as long.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin of tests/plugin, installed in this process."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    registry.entries.cache_clear()
    yield
    registry.entries.cache_clear()
