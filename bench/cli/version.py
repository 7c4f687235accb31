"""What `bench --version` says. No torch is imported."""

import platform
from importlib import metadata
from pathlib import Path

import bench
from bench.run.environment import git_state

COMMIT = 12  # digits that are shown


def version() -> str:
    """The program's version, its commit where it runs from a checkout, and those of torch and Python."""
    git = git_state(Path(bench.__file__).parent.parent)
    commit = "" if git is None else f" (commit {git['commit'][:COMMIT]}{', with changes' * git['dirty']})"
    torch = metadata.version("torch")
    return f"bench {bench.__version__}{commit}, torch {torch}, Python {platform.python_version()}"
