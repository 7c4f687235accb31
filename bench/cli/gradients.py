"""The commands that measure gradients: gradients, and one probe of it."""

import sys
from pathlib import Path
from typing import Annotated

from rich.console import Console
from typer import Option

from bench.base.console import progress, without_bars
from bench.cli import completing, options

console = Console()
Places = Annotated[
    list[str] | None,
    Option(
        metavar="PLACE",
        help="θ: init, or the directory of a trained cell or LoRA; may be repeated",
        show_default="init",
    ),
]
Budget = Annotated[
    str | None,
    Option("--budget-time", "--budget", metavar="TIME", help="drawing for all together: 90s, 5m, 2h"),
]
Draws = Annotated[
    int | None, Option(min=1, metavar="N", help="batch gradients of each method, earlier ones included")
]
Precision = Annotated[
    float | None, Option(min=1e-4, metavar="X", help="stop where the bias is known to ± this")
]


def gradients(
    methods: options.Methods = "all",
    model: options.Model = None,
    reward: Annotated[
        str | None,
        Option(
            metavar="NAME", help=options.REWARD, show_default="the model's", autocompletion=completing.reward
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help=options.PROMPTS,
            show_default="the model's",
            autocompletion=completing.prompt_set,
        ),
    ] = None,
    at: Places = None,
    seed: options.Seed = 0,
    budget: Budget = None,
    draws: Draws = None,
    precision: Precision = None,
    settings: options.Settings = None,
    out: options.Out = Path("results/gradients"),
    jobs: options.Jobs = None,
    threads: options.Threads = None,
    device: options.Device = None,
    force: options.Again = False,
) -> None:
    """Measure bias, variance and cost of each method's gradient against the exact one.

    Without --budget-time, --draws or --precision: a budget of 5 minutes. Draws are added to earlier ones.
    """
    progress("gradients: looking for methods, model and prompts")
    from bench.api.profiling import measure
    from bench.experiment.request import Options

    asked = Options(
        methods=methods, model=model, reward=reward, prompts=prompts, seeds=str(seed),
        settings=settings or (), threads=threads, out=out,
    )  # fmt: skip
    ended = measure(console, asked, at or (), budget, draws, precision, jobs, force, console)
    sys.exit(ended.tell(console))


def probe(
    directory: Path,
    timeout: options.Timeout = None,
    draws: Annotated[int | None, Option()] = None,
    precision: Annotated[float | None, Option()] = None,
    with_parent: options.WithParent = False,
) -> None:
    """Measure one planned profile in this process."""
    without_bars()
    from bench.measure.gradients.store import ProbeDir
    from bench.measure.gradients.worker import run_probe
    from bench.run.recorded import end_with_parent

    if with_parent:
        end_with_parent()
    sys.exit(run_probe(ProbeDir(directory), timeout, draws, precision))
