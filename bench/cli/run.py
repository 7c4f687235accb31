"""The commands that run cells and look at what came of them: run, sample, report, evaluate."""

import sys
from pathlib import Path
from typing import Annotated

from rich.console import Console
from typer import Argument, Option

from bench.base.console import plain, progress, without_bars
from bench.base.errors import BenchError
from bench.cli import completing, options
from bench.cli.as_json import tell

console = Console()
Processes = Annotated[int, Option(min=1, metavar="N", help="data-parallel processes of each cell")]
TimeoutPerCell = Annotated[
    float | None, Option(min=1, metavar="N", help="seconds; the cell can be continued")
]
InProcess = Annotated[
    bool, Option("--in-process", help="one cell after the other in this process, for a debugger")
]
OnlyFailed = Annotated[
    bool,
    Option("--only-failed", help="cells that failed; with --out DIR alone, of that directory"),
]


def run(
    methods: options.Methods = None,
    model: options.Models = None,
    reward: options.Rewards = None,
    prompts: options.Prompts = None,
    seeds: options.Seeds = None,
    steps: options.Steps = None,
    budget: options.Budget = None,
    config: options.Config = None,
    settings: options.Settings = None,
    out: options.NamedOut = None,
    jobs: options.Jobs = None,
    threads: options.Threads = None,
    device: options.Device = None,
    processes: Processes = 1,
    timeout_per_cell: TimeoutPerCell = None,
    dry_run: options.DryRun = False,
    weights: options.Weights = None,
    dcot: options.Dcot = None,
    tuned: Annotated[
        Path | None, Option(metavar="DIR", help="each method with the settings that `tune` chose there")
    ] = None,
    report: Annotated[bool, Option(help="tables and figures at the end")] = True,
    force: options.Again = False,
    only_failed: OnlyFailed = False,
    in_process: InProcess = False,
    slurm: options.Slurm = None,
    track: options.Track = None,
) -> None:
    """Fine-tune a model by several methods and compare them. Without options: the demo."""
    from bench.api.running import HowToRunAll, run_all
    from bench.experiment.request import Options

    asked = Options(
        methods=methods, model=model, reward=reward, prompts=prompts, seeds=seeds, steps=steps, budget=budget,
        config=config, settings=settings or (), weights=weights, dcot=dcot, threads=threads, out=out,
    )  # fmt: skip
    how = HowToRunAll(
        tuned, jobs, processes, timeout_per_cell, dry_run, report, force, in_process, slurm, only_failed
    )
    sys.exit(run_all(console, asked, how, console).ended.tell(console))


def cell(directory: Path, timeout: options.Timeout = None, with_parent: options.WithParent = False) -> None:
    """Run one planned cell in this process. --with-parent: end when standard input closes."""
    without_bars()
    from bench.run.cell import run_cell
    from bench.run.recorded import end_with_parent
    from bench.run.store import CellDir

    if with_parent:
        end_with_parent()
    sys.exit(run_cell(CellDir(directory), timeout))


def sample(
    prompt: Annotated[str, Option(metavar="TEXT", help="what to draw")],
    model: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help=options.MODEL,
            show_default="the cell's, or tiny",
            autocompletion=completing.model,
        ),
    ] = None,
    lora: Annotated[Path | None, Option(metavar="DIR", help=options.LORA)] = None,
    n: Annotated[int, Option("--n", min=1, metavar="N", help="pictures")] = 4,
    seed: options.Seed = 0,
    out: options.Out = Path("samples"),
    settings: options.Settings = None,
    dcot: Annotated[
        bool | None,
        Option(
            "--dcot/--no-dcot",
            help="other prompts for coarse, mid and fine steps",
            show_default="as the cell",
        ),
    ] = None,
    device: options.Device = None,
) -> None:
    """Draw pictures with a model, with or without a trained LoRA."""
    without_bars()
    progress(f"sample: loading {model or lora or 'tiny'}")
    from bench.run.sample import draw, write

    for path in write(draw(prompt, model, lora, n, seed, settings or (), dcot), prompt, out):
        plain(console, str(path))


def report(
    directories: Annotated[
        list[Path], Argument(metavar="DIR...", help="a results directory, or several to show together")
    ],
    out: Annotated[Path | None, Option(metavar="DIR", help=options.OUT, show_default="DIR/report")] = None,
    paper: Annotated[
        bool, Option("--paper", help="the RLR paper's tables beside these cells, and what is missing of them")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Build the tables and figures of results directories again, and print the summary."""
    first, *others = directories
    progress(f"report: looking at {', '.join(map(str, directories))}")
    from bench.report.report import write_report

    page = write_report(first, Console(quiet=True) if as_json else console, out, paper, others)
    if as_json:
        from bench.report.as_object import as_object
        from bench.report.load import load

        tell({**as_object(load(first, *others)), "report": page})


def verify(
    directory: options.Results,
    repair: Annotated[
        bool, Option("--repair", help="put what is damaged back to where it can continue")
    ] = False,
) -> None:
    """List the damaged files of a results directory; exit code 1 if there are any left."""
    progress(f"verify: looking at {directory}")
    from bench.run.verify import verify as examine

    sys.exit(examine(console, directory, repair))


def evaluate(
    images: Annotated[
        Path | None, Option(metavar="DIR", help="a directory of pictures from anywhere")
    ] = None,
    cell: Annotated[
        list[Path] | None,
        Option(metavar="DIR", help="a cell, whose held-out pictures are drawn again; may be repeated"),
    ] = None,
    rewards: Annotated[
        str,
        Option(
            "--reward", "--rewards", metavar="NAMES", help=options.REWARD, autocompletion=completing.rewards
        ),
    ] = "all",
    prompts_file: Annotated[
        Path | None,
        Option(metavar="FILE", help=options.PROMPTS_FILE),
    ] = None,
    at_once: Annotated[
        int | None,
        Option(
            min=1,
            metavar="N",
            help=options.AT_ONCE,
            show_default="8, or the cell's",
        ),
    ] = None,
    settings: options.Settings = None,
    out: Annotated[
        Path | None, Option(metavar="FILE", help=options.OUT, show_default="the terminal alone")
    ] = None,
    device: options.Device = None,
) -> None:
    """Score pictures from anywhere, or a trained cell by other rewards than its run did."""
    without_bars()
    progress(f"evaluate: loading {rewards}")
    if (images is None) == (not cell):
        raise BenchError("say what to score: either --images DIRECTORY, or --cell DIRECTORY")
    if images is None and prompts_file is not None:
        raise BenchError("--prompts-file goes with --images; a cell has its own prompts")
    from bench.run import score

    asked = score.ScoringRequest(rewards, settings or (), at_once, out)
    if images is not None:
        score.score_images(console, images, prompts_file, asked)
    else:
        score.score_cells(console, cell or (), asked)
