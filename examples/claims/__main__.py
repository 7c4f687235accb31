"""`python -m examples.claims` lists the claims, `python -m examples.claims NAME` examines one."""

from __future__ import annotations

import argparse
import ast
import importlib
from pathlib import Path


def claims() -> dict[str, str]:
    """Name → first line of the docstring, without importing anything."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("[!_]*.py")):
        found[file.stem] = (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0]
    return found


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    known = claims()
    parser = argparse.ArgumentParser(prog="python -m examples.claims", description=__doc__)
    parser.add_argument("name", nargs="?", choices=known, metavar="NAME")
    parser.add_argument("--samples", type=int, help="size of the experiment (default: the claim's own)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write FILE as .png and as .svg")
    chosen = parser.parse_args(arguments)
    if chosen.name is None:
        print("\n".join(f"{name:16} {summary}" for name, summary in known.items()))
        return
    module = importlib.import_module(f"examples.claims.{chosen.name}")
    if chosen.plot and not hasattr(module, "plot"):
        parser.error(f"{chosen.name} has no plot")
    outcome = module.run(chosen.samples or module.SAMPLES, chosen.seed)
    print(module.__doc__, outcome, sep="\n")
    if chosen.plot:
        module.plot(outcome, chosen.plot)


if __name__ == "__main__":
    main()
