"""A cell's checkpoints: generations on disk, each named by the digest of its contents. No torch here."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bench.base.errors import BenchError
from bench.base.files import write_atomically

GENERATIONS = 2


class Checkpoints:
    """checkpoint/: the two newest generations, `<step>-<digest of the contents>.pt`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _files(self) -> list[Path]:
        return sorted(self.path.glob("*.pt"), reverse=True) if self.path.is_dir() else []

    def steps(self) -> list[int]:
        """The steps of the generations that are there, newest first."""
        return [_step(file) for file in self._files()]

    def newest(self) -> int:
        """The step of the newest generation; -1 if there is none."""
        return max(self.steps(), default=-1)

    def damaged(self) -> list[Path]:
        """Generations whose contents are not those that they were named after."""
        return [file for file in self._files() if not _intact(file, file.read_bytes())]

    def old(self) -> list[Path]:
        """The generations before the newest one; none if that is damaged, and they are what is left."""
        files = self._files()
        whole = len(files) > 1 and _intact(files[0], files[0].read_bytes())
        return files[1:] if whole else []

    def forget(self, step: int) -> None:
        """Remove the generations at a step and after it."""
        for file in self._files():
            if _step(file) >= step:
                file.unlink()

    def write(self, step: int, data: bytes) -> None:
        """Add a generation and drop those before the last two."""
        file = self.path / f"{step:08d}-{_digest(data)}.pt"
        write_atomically(file, data)
        same_step = [f for f in self._files() if f != file and _step(f) == step]
        for old in {*same_step, *self._files()[GENERATIONS + len(same_step) :]}:
            old.unlink()

    def read(self) -> tuple[bytes | None, list[str]]:
        """The newest undamaged generation (None: there never was one), and what to tell about damaged ones.

        Raises BenchError if there are checkpoints and all are damaged.
        """
        messages: list[str] = []
        damaged: list[Path] = []
        for file in self._files():
            data = file.read_bytes()
            if _intact(file, data):
                for bad in damaged:
                    bad.unlink(missing_ok=True)
                return data, messages
            damaged.append(file)
            messages.append(f"{file} is damaged: falling back to the checkpoint before it")
        if damaged:
            names = ", ".join(str(file) for file in damaged)
            raise BenchError(
                f"all checkpoints are damaged: {names}. Start the cell again with --force, or have "
                "`python -m bench verify RESULTS --repair` remove them."
            )
        return None, messages


def _step(file: Path) -> int:
    return int(file.stem.partition("-")[0])


def _intact(file: Path, data: bytes) -> bool:
    return file.stem.partition("-")[2] == _digest(data)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
