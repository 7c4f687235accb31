"""The notebooks of docs/notebooks/, executed: `python -m scripts.notebooks` stores what came out in them.

tests/api/test_notebooks.py executes them without storing anything.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


class ThisPython(KernelSpecManager):
    """Knows one kernel: the running interpreter, whatever is installed for Jupyter on this machine."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The running interpreter, with this checkout on its path and one thread."""
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            env={"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            display_name="Python 3",
            language="python",
        )


def executed(notebook: Path, directory: Path) -> NotebookNode:
    """A notebook with what its cells give when they are run in a directory.

    Raises nbclient.exceptions.CellExecutionError with the traceback of a cell that fails.
    """
    found = nbformat.read(notebook, as_version=4)
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=ThisPython())
    client = NotebookClient(
        found,
        km=manager,
        timeout=None,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(directory)}},
    )
    return client.execute()


def main() -> None:
    """Execute all, and store them with their outputs."""
    for notebook in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as directory:
            found = executed(notebook, Path(directory))
        for number, cell in enumerate(found.cells):
            cell.id = str(number)
        found.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(found, notebook)
        print(notebook)


if __name__ == "__main__":
    main()
