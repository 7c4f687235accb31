"""Make the embedded models: `python -m bench.models.embedded.train <stage>`.

Stages, in order: fetch, data, tokenizer, vae, reward, unet, export, evaluate, sheet; `all` runs them one after
the other. Every stage reads and writes the work directory; `reward` and `unet` need only the ones before them
and may run side by side. A stage that was killed continues where its last snapshot left it.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

STAGES = ("fetch", "data", "tokenizer", "vae", "reward", "unet", "export", "evaluate", "sheet")
DEFAULT_WORK = Path.home() / ".cache" / "reward-finetuning-bench" / "embedded"
STEPS = {"vae": 6500, "reward": 6000, "unet": 40000}
"""Training steps of the shipped weights."""


def _log(message: str) -> None:
    print(message, flush=True)


def _run(stage: str, arguments: argparse.Namespace) -> None:
    """Run one stage; imports are local so that `--help` and `fetch` need no torch."""
    work: Path = arguments.work
    steps = arguments.steps if arguments.steps is not None else STEPS.get(stage, 0)
    if stage == "fetch":
        from bench.models.embedded.fetch import fetch

        for path in fetch(work, arguments.registry):
            _log(str(path))
        return
    if stage == "data":
        from bench.models.embedded.data import build_data

        _log(str(build_data(work)))
        return
    import torch

    torch.set_num_threads(1)  # numbers depend on it, and two processes use two cores better than two threads
    _log(str(_torch_stage(stage)(work, steps, arguments)))


def _torch_stage(stage: str) -> Callable[[Path, int, argparse.Namespace], Path]:
    if stage == "tokenizer":
        from bench.models.embedded.captions import make_tokenizer

        return lambda work, steps, a: make_tokenizer(work)
    if stage == "vae":
        from bench.models.embedded.vae import train_vae

        return lambda work, steps, a: train_vae(work, steps, a.seed, _log)
    raise ValueError(stage)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    from bench.models.embedded.fetch import REGISTRY

    parser = argparse.ArgumentParser(prog="python -m bench.models.embedded.train", description=__doc__)
    parser.add_argument("stage", choices=[*STAGES, "all"])
    parser.add_argument(
        "--work", type=Path, default=DEFAULT_WORK, help="work directory (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, help="training steps, instead of those of the shipped weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--registry", default=REGISTRY, help="npm registry (default: %(default)s)")
    arguments = parser.parse_args(argv)
    arguments.work.mkdir(parents=True, exist_ok=True)
    for stage in STAGES if arguments.stage == "all" else (arguments.stage,):
        _run(stage, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
