"""The commands that run cells and look at what came of them: run, sample, report, evaluate."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from typer import Argument, Option

from bench.base.console import caution, plain, progress, without_bars
from bench.base.errors import BenchError
from bench.cli import completing, options
from bench.cli.as_json import tell

if TYPE_CHECKING:
    from bench.experiment.request import Experiment, Options

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
    from bench.experiment.request import Options
    from bench.run import again, experiment
    from bench.run.process import HowToRun

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise BenchError("start `run` itself only once: `--processes N` makes every cell data-parallel")
    asked = Options(
        methods=methods, model=model, reward=reward, prompts=prompts, seeds=seeds, steps=steps, budget=budget,
        config=config, settings=settings or (), weights=weights, dcot=dcot, threads=threads, out=out,
    )  # fmt: skip
    what = _tuned(asked, tuned)
    if slurm is not None:
        if only_failed:
            raise BenchError(
                f"--only-failed: on SLURM, `python -m bench retry {what.out}` sends failed cells"
            )
        from bench.run.slurm import sweep

        sys.exit(
            sweep.submit(console, what, sweep.SweepRequest(slurm, (), jobs, False, dry_run, force, "--slurm"))
        )
    if in_process and (processes > 1 or jobs is not None):
        raise BenchError("--in-process runs one cell at a time in one process: leave --jobs and --processes")
    if only_failed:
        whole = tuned is None and asked == Options(out=out)
        planned = again.plan(what, whole, force, fetch=not dry_run, processes=processes)
    else:
        planned = experiment.plan(what, force, fetch=not dry_run, processes=processes)
    if dry_run:
        experiment.show(console, planned)
        return
    ended = experiment.run(console, planned, jobs, HowToRun(processes, timeout_per_cell), in_process)
    if report and ended.reportable:
        from bench.report.report import write_report

        write_report(planned.results.path, console)
    sys.exit(ended.tell(console))


def _tuned(asked: "Options", directory: Path | None) -> "Experiment":
    """The experiment, with what `tune` chose below what was typed; and a caution if for another one."""
    from bench.base import registry
    from bench.experiment.request import build

    experiment = build(asked)
    if directory is None:
        return experiment
    from bench.experiment.resolve import resolve_all
    from bench.protocol.tune import tuned, tuned_otherwise

    methods = {m for part in experiment.combinations for m in part.methods or registry.entries("method")}
    found = experiment.over(tuned(directory, sorted(methods)))
    cells = resolve_all(found.combinations, fetch=False)
    if text := tuned_otherwise(directory, [cell.config for cell in cells]):
        caution(text)
    return found


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
    from bench.run.sample import write_samples

    for path in write_samples(prompt, model, lora, n, seed, out, settings or (), dcot):
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
