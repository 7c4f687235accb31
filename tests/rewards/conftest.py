from pathlib import Path

import pytest

from tests.support.scorers import NAMES, build


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small random weights of every learned scorer, in the format of the original files."""
    return {name: build(name, tmp_path_factory.mktemp(name)) for name in NAMES}
