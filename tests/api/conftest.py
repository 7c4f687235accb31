"""Trained cells of the test model, made by one call of `bench.run`."""

import pytest

import bench
from bench.base import registry
from bench.run import preflight
from tests.support.running import DOTS, PLUGIN


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> bench.Results:
    """Two methods, one of which fails in its second step, and the base model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PLUGIN))
        patch.setattr(preflight, "check", lambda cells, call_rewards=True: None)
        registry.entries.cache_clear()
        found = bench.run(
            methods=["leaning", "broken"], model=str(DOTS), steps=3, settings={"broken": {"at": 2}},
            out=tmp_path_factory.mktemp("trained"), in_process=True, report=False, check=False,
        )  # fmt: skip
        registry.entries.cache_clear()
    return found
