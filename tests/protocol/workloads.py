"""Workloads for tests."""

from pathlib import Path

from bench.base.layers import Tree
from tests.support.running import DOTS


def written(folder: Path, **changes: object) -> Path:
    """A workload on the test model."""
    content: Tree = {
        "model": str(DOTS),
        "reward": "brightness",
        "prompts": "emoji",
        "budget": 200,
        "target": 0.6,
        "reported": {"skip": 0, "prompts": 3},
        "tuning": {"skip": 3, "prompts": 4},
        **changes,
    }
    path = folder / "dots-workload.yaml"
    path.write_text(str(content))
    return path
