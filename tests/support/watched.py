"""`python -m bench …` with a record of what it imports, opens, starts, connects to and waits for.

    python -m tests.support.watched RECORD ARGUMENTS…

Seconds depend on the machine and on what else it does; these counts do not.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HEAVY = ("torch", "numpy", "huggingface_hub", "diffusers", "transformers", "peft", "accelerate", "pandas")
HEAVY += ("matplotlib", "scipy", "PIL", "submitit")


@dataclass
class Record:
    """Of one process. modules: all that it had at its end. opened: files, in order, each as often as it was
    opened. started: the command lines of other processes. waits: seconds asked of `time.sleep`."""

    modules: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    connected: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def heavy(self) -> set[str]:
        """Which of the packages that take seconds to import it imported."""
        return {name for name in HEAVY if name in self.modules}

    def inside(self, directory: Path) -> list[str]:
        """What it opened below a directory."""
        return [path for path in self.opened if Path(path).is_relative_to(directory)]

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook."""
        if event == "open" and isinstance(arguments[0], str):
            self.opened.append(arguments[0])
        elif event == "subprocess.Popen":
            self.started.append(str(arguments[1]))
        elif event in ("socket.connect", "socket.getaddrinfo"):
            self.connected.append(str(arguments[:2]))
        elif event == "time.sleep":
            self.waits.append(float(arguments[0]))


def watched(
    record: Path, *arguments: object, **variables: str
) -> tuple[subprocess.CompletedProcess[str], Record]:
    """Run a command to its end. record: a file to be written. variables: of the environment."""
    from tests.support.running import (
        environment,  # not in the process that is watched: it imports half of bench
    )

    done = subprocess.run(
        [sys.executable, "-m", "tests.support.watched", str(record), *map(str, arguments)],
        env=environment() | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    return done, Record(**json.loads(record.read_text()))


def main(record: Path) -> None:
    """Run the command and write the record."""
    found = Record()
    before = set(sys.modules)  # of this module and of Python's start
    sys.addaudithook(found.hear)
    from bench.cli.main import main as bench_main

    try:
        bench_main()
    finally:
        found.modules = sorted(set(sys.modules) - before)
        record.write_text(json.dumps(asdict(found)))


if __name__ == "__main__":
    path = Path(sys.argv.pop(1))
    main(path)
