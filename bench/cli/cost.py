"""The commands about cost: profile, and plan, which needs neither a GPU nor weights."""

import sys
from pathlib import Path
from typing import Annotated

from rich.console import Console
from typer import Option

from bench.base import units
from bench.base.console import progress, without_bars
from bench.cli import completing, options
from bench.cli.as_json import tell

console = Console()
CHECKED = "rlr,zo,truncated_bp"  # what a calibration is checked on, unless others are named
Measure = Annotated[
    bool | None,
    Option(
        "--measure/--simulate",
        help="on this machine, or without weights on fake tensors",
        show_default="simulate, but measure the embedded model",
    ),
]
Graphs = Annotated[
    str | None,
    Option(
        metavar="KINDS",
        help="staged, joint (the memory of direct implementations) or both: staged,joint",
        show_default="staged",
    ),
]
Vary = Annotated[
    list[str] | None,
    Option(
        metavar="SETTINGS", help="SECTION.KEY=VALUE,VALUE…: profile with each, such as model.steps=10,25,50"
    ),
]
Calibration = Annotated[
    Path | None, Option(metavar="FILE", help="predict seconds from it", show_default="OUT/calibration.json")
]


def profile(
    methods: options.Methods = None,
    model: options.Model = None,
    reward: options.Rewards = None,
    batch: Annotated[
        int | None,
        Option(min=1, metavar="N", help=options.BATCH, show_default="the model's"),
    ] = None,
    measure: Measure = None,
    graphs: Graphs = None,
    settings: options.Settings = None,
    vary: Vary = None,
    calibrate: Annotated[
        bool, Option("--calibrate", help="measure this device's throughput, to predict seconds with")
    ] = False,
    calibration: Calibration = None,
    out: options.Out = Path("results/profile"),
    threads: options.Threads = None,
    device: options.Device = None,
) -> None:
    """Show what one optimizer step of each method takes: memory by component, evaluations, time."""
    without_bars()
    progress("profile: looking for methods and model")
    from bench.experiment.request import Options, build
    from bench.measure.cost import plan, run

    planned = []
    for varied in plan.varied(vary or ()):
        asked = Options(
            methods=methods or (CHECKED if calibrate else "all"), model=model, reward=reward, seeds="0",
            settings=[*(settings or ()), *varied], threads=threads, out=out,
        )  # fmt: skip
        for kind in graphs.split(",") if graphs else [None]:
            planned.append(plan.plan(build(asked), True if calibrate else measure, batch, kind))
    together = plan.merged(planned)
    sys.exit(run.calibrate(console, together) if calibrate else run.run(console, together, calibration))


def plan(
    budget: Annotated[
        str,
        Option(
            "--budget-memory", "--budget", metavar="SIZE", help="memory: 40GB (10^9 bytes) or 24GiB (2^30)"
        ),
    ],
    model: options.Model = "tiny",
    method: Annotated[
        str,
        Option(
            metavar="NAME",
            help="one with a half-order block of h steps",
            autocompletion=completing.method,
        ),
    ] = "rlr",
    batch: Annotated[int, Option(min=1, metavar="N", help=options.BATCH)] = 4,
    deadline: Annotated[
        str | None, Option(metavar="TIME", help="such as 24h: how many optimizer steps fit")
    ] = None,
    settings: options.Settings = None,
    gradients: Annotated[
        Path, Option(metavar="DIR", help="results of `bench gradients`, for variances")
    ] = Path("results/gradients"),
    profiles: Annotated[Path, Option(metavar="DIR", help="results of `bench profile`, for seconds")] = Path(
        "results/profile"
    ),
    as_json: options.AsJson = False,
) -> None:
    """Say which h, batch and checkpointing fit a memory budget, and why. Needs no GPU and no weights."""
    without_bars()
    progress("plan: looking for method and model")
    from bench.measure.cost import plan_report, planner

    limit = units.size(budget, "--budget")
    time = None if deadline is None else units.duration(deadline, "--deadline")
    config = planner.cell(method, model or "tiny", batch, settings or ())
    shown = Console(quiet=True) if as_json else console
    planned = plan_report.run(shown, config, limit, time, gradients, profiles)
    if as_json:
        tell(planned)
