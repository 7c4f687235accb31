"""The plan in tables and words; `h* = N` is the last line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.base.console import plain, progress
from bench.base.errors import BenchError
from bench.base.units import GIB, gigabytes
from bench.experiment.settings import CellConfig
from bench.measure.cost import planner
from bench.measure.cost.earlier import Timing, timing, variances
from bench.measure.cost.planner import Answers, Candidate, Facts
from bench.measure.cost.simulate import Simulator
from bench.measure.cost.step import trained
from bench.measure.cost.usage import Usage
from bench.run.forecast import Earlier, memory_of
from bench.run.gpu_hours import Speedometer
from bench.run.spent import Limit


@dataclass(frozen=True)
class Planned:
    """What was decided. ways: of running with staged graphs at that h; chosen: one of them, None where joint
    graphs were asked for. run_with: options of `bench run`. hours: of a cell by card, in words; empty where
    that is not known. steps_in_time: optimizer steps until the deadline, None without one or a speed.
    """

    h: int
    model: str
    method: str
    facts: Facts
    rules: Answers
    ways: tuple[Candidate, ...]
    chosen: Candidate | None
    run_with: str
    reasons: str
    warnings: tuple[str, ...]
    hours: str
    steps_in_time: int | None


def run(
    console: Console, config: CellConfig, budget: int, deadline: float | None, gradients: Path, profiles: Path
) -> Planned:
    """Plan and print. budget: bytes. deadline: seconds. gradients, profiles: results directories."""
    training, steps = trained(config), config.model.config.steps
    method, own = training.method.name, int(training.method.config["h"])
    known_variances = variances(gradients, method, config.model.name, steps, own)
    simulate = _telling(Simulator())
    known = planner.facts(config, budget, simulate, known_variances)
    _memory(console, config, known)
    found = planner.answers(known)
    _answers(console, known, found, gradients)
    h = planner.decide(known, found)
    ways = planner.choices(config, h, simulate)
    best = planner.chosen(ways, budget)
    _choices(console, ways, best, h, budget)
    for text in warnings(known, found):
        _say(console, f"warning: {text}")
    speed = None if deadline is None else timing(config, h, known_variances, profiles)
    if deadline is not None:
        _say(console, _deadline(config, deadline, speed))
    _say(console, reasons(known, found, h))
    if known.graphs == "staged" and best is None:
        least = min(way.peak for way in ways)
        raise BenchError(
            f"--budget-memory: no way of running {config.model.name} at h = {h} fits: the least memory is "
            f"{gigabytes(least)} GB, the budget {gigabytes(budget)} GB. Take a larger budget, or a smaller "
            "model, resolution, batch or reward"
        )
    run_with = settings(known, best, h, method)
    _say(console, f"run with: {run_with}")
    if whole := whole_cell(config, best, h):
        _say(console, whole)
    if hours := gpu_hours(config, best, h, profiles.parent):
        _say(console, hours)
    plain(console, f"h* = {h}", wrap=True)
    return Planned(
        h=h,
        model=config.model.name,
        method=method,
        facts=known,
        rules=found,
        ways=tuple(ways),
        chosen=best,
        run_with=run_with,
        reasons=reasons(known, found, h),
        warnings=tuple(warnings(known, found)),
        hours=hours,
        steps_in_time=None if deadline is None or speed is None else int(deadline / speed.seconds),
    )


def _telling(simulate: planner.Simulate) -> planner.Simulate:
    """The simulation that says what it simulates: one takes from a second to a minute."""
    numbers = count(1)

    def telling(config: CellConfig) -> Usage:
        method, train = trained(config).method, trained(config).train
        on = "with" if config.model.config.gradient_checkpointing else "without"
        at = f" at h = {method.config['h']}" if "h" in method.config else ""
        progress(
            f"simulation {next(numbers)}: {method.name}{at}, {train.least_graphs} graphs, micro_batch "
            f"{train.at_once}, {on} checkpointing"
        )
        return simulate(config)

    return telling


def _say(console: Console, text: str) -> None:
    plain(console, text, wrap=True)
    console.print()


def _table(console: Console, title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; its first column is on the left if it holds words."""
    table = Table(title=title, title_justify="left")
    for n, header in enumerate(headers):
        words = n == 0 and any(not row[0].isdecimal() for row in rows)
        table.add_column(header, justify="left" if words else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _memory(console: Console, config: CellConfig, known: Facts) -> None:
    batch, model = trained(config).train.batch, config.model
    _say(
        console,
        f"{model.name}, T = {known.steps}, batch {batch}, budget {gigabytes(known.budget)} GB "
        f"({known.budget / GIB:.1f} GiB). Simulated; GB are 10^9 bytes of live tensors: leave a GPU about "
        "1 GB for CUDA itself, and some for the allocator.",
    )
    rows = [
        ("on" if j.checkpointing else "off", gigabytes(j.base), gigabytes(j.slope), _none_or(j.fits))
        for j in known.joint
    ]
    title = "Graphs of the whole batch at once (joint), as Eq. 7 supposes"
    _table(
        console,
        title,
        ("checkpointing", "peak at h = 0, GB", "B_h, GB per HO step", "largest h that fits"),
        rows,
    )
    _say(console, f"B_z = {gigabytes(known.slope_zo)} GB per ZO step (the paper: 0.24; B_h: 8)")


def _none_or(h: int) -> str:
    return "none" if h < 0 else str(h)


def _answers(console: Console, known: Facts, found: Answers, gradients: Path) -> None:
    profile = known.variances
    stds = "V_h « V_z assumed"
    if profile and profile.v_h is not None and profile.v_z is not None:
        stds = f"V_h = {profile.v_h:.3g}, V_z = {profile.v_z:.3g} of |g|, profiled"
    rows = [
        ("Eq. 8, first term, with the simulated B_h and B_z", _none_or(found.first)),
        ("Eq. 8, first term, with the paper's B_h = 8 and B_z = 0.24", _none_or(found.first_paper)),
        (f"Eq. 8, second term ({stds})", "unbounded" if math.isinf(found.second) else f"{found.second:.0f}"),
        ("Eq. 8 as printed: the smaller one", _none_or(found.printed)),
        ("memory beside weights and first-order step, joint graphs", _none_or(known.eq7.fits)),
        ("memory, staged graphs: does not bound h", str(known.longest)),
        (f"Eq. 7's surrogate, corrected, {known.graphs} graphs", _none_or(found.corrected)),
        (
            f"variance × seconds, measured ({gradients})",
            "–" if found.measured is None else str(found.measured),
        ),
    ]
    _table(console, "h by rule", ("rule", "h"), rows)
    if profile is not None:
        lines = [
            (str(row.h), *(f"{number:.3g}" for number in (row.variance, row.se, row.seconds, row.cost)))
            for row in profile.rows
        ]
        headers = ("h", "variance", "± SE", "seconds", "variance × s")
        _table(console, f"Profiled at batch {profile.batch}", headers, lines)
    console.print()


def _choices(
    console: Console, ways: Sequence[Candidate], best: Candidate | None, h: int, budget: int
) -> None:
    least = min(way.flops for way in ways)
    rows = [
        (
            "on" if way.settings["model.gradient_checkpointing"] else "off",
            str(way.settings["train.micro_batch"]),
            str(way.settings["train.reward_chunk"] or "all"),
            "yes" if "model.offload" in way.settings else "no",
            gigabytes(way.peak),
            gigabytes(way.host),
            f"{way.flops / least:.2f}" + (" + transfers" if way.host else ""),
            ("yes ←" if way is best else "yes") if way.peak <= budget else "no",
        )
        for way in ways
    ]
    sizes = ("peak GB", "host GB")
    headers = ("checkpointing", "micro_batch", "reward_chunk", "offload", *sizes, "time", "fits")
    _table(console, f"Staged graphs at h = {h}", headers, rows)
    _say(
        console,
        "time: floating-point operations relative to the least. Small pieces use a GPU less well, which they "
        "do not show.",
    )


def warnings(known: Facts, found: Answers) -> list[str]:
    """Where Eq. 8's assumptions fail."""
    told = [
        "Eq. 8's second term is -b/(4a) of its own parabola; the vertex is -b/(2a), at h = T - 1 or beyond. "
        "Its surrogate falls all the way to h = T - 1."
    ]
    if known.slope_zo < 0.01 * known.eq7.slope:
        told.append(
            f"Eq. 8 adds B_z for every ZO step, but a ZO step stores no graph: simulated "
            f"{gigabytes(known.slope_zo)} GB (its latent), not 0.24."
        )
    left_out = known.eq7.base
    told.append(
        f"Eq. 8's constraint leaves out what is there before the block: {gigabytes(left_out)} GB of weights, "
        f"decoder, reward and first-order step. With them, {_fit(known.eq7.fits)}."
    )
    profile = known.variances
    if profile is None:
        told.append(
            "Eq. 8 supposes V_h « V_z at every h, and that time is free. No gradient profile of this model "
            "was found: python -m bench gradients --methods rlr-h0,rlr-h1,rlr-h2,rlr-h3,rlr-h4 measures both."
        )
    elif profile.v_h is not None and profile.v_z is not None and profile.v_h > 0.1 * profile.v_z:
        told.append(f"V_h « V_z fails: V_h / V_z = {profile.v_h / profile.v_z:.2g}.")
    if not 0 < found.first < known.steps:
        told.append(f"Eq. 8 assumes B_z T < B < B_h T; here its first term is {_none_or(found.first)}.")
    return told


def _fit(h: int) -> str:
    return "no h fits" if h < 0 else f"h = {h} is the largest that fits"


def reasons(known: Facts, found: Answers, h: int) -> str:
    """Why h is the one to take, in sentences."""
    profile = known.variances
    if found.measured is not None and profile is not None:
        text = f"h = {h}: of the profiled h that fit, it has the least variance × seconds"
        rivals = [str(row.h) for row in profile.rivals() if row.h <= known.allowed]
        if rivals:
            text += f"; h = {', '.join(rivals)} cannot be told from it (2 standard errors)"
        bound = "memory allows any h" if known.graphs == "staged" else f"memory allows h ≤ {known.allowed}"
        return f"{text}. {bound[0].upper()}{bound[1:]} ({known.graphs} graphs)."
    if known.graphs == "staged":
        return (
            f"h = {h}: staged graphs are held one step at a time, so memory does not bound h, and the "
            "surrogate falls up to T - 1, where no perturbed step is left. It leaves out that time grows by "
            "about one forward and one backward pass per HO step; without a gradient profile that is not "
            "weighed. For the paper's trade-off, in which memory decides, add --set train.graphs=joint."
        )
    return f"h = {h}: the surrogate falls with h, so the largest h whose joint graphs fit."


def settings(known: Facts, best: Candidate | None, h: int, method: str) -> str:
    """The options of `bench run` that follow from the plan."""
    if known.graphs == "joint":
        on = str(known.joint[-1].checkpointing).lower()
        return f"--set train.graphs=joint --set model.gradient_checkpointing={on} --set {method}.h={h}"
    assert best is not None  # `run` has said that nothing fits
    return f"{best.words()} --set {method}.h={h}"


def whole_cell(config: CellConfig, best: Candidate | None, h: int) -> str:
    """What a cell takes of a GPU with its evaluations, by docs/operations.md; empty if that is not known."""
    taken = memory_of(_run_as(config, best, h), gpu=True)
    if taken is None or not taken.exact:  # a bound from below may lie below the step's own peak
        return ""
    return (
        f"A whole cell, with text encoders and evaluations by all its rewards: {taken} (docs/operations.md). "
        "Rewards that training does not need wait in main memory between evaluations."
    )


def _run_as(config: CellConfig, best: Candidate | None, h: int) -> CellConfig:
    """The cell with what was chosen for it."""
    chosen = {} if best is None else {k.partition(".")[2]: v for k, v in best.settings.items()}
    return planner.changed(config, h, **chosen)


def gpu_hours(config: CellConfig, best: Candidate | None, h: int, experiments: Path) -> str:
    """What a whole cell takes on which card; empty for a model that configs/gpus.yaml does not have."""
    found = Speedometer(Earlier(experiments).seen).hours(_run_as(config, best, h))
    if found is None:
        return ""
    length = Limit(trained(config).train)
    return (
        f"GPU-hours of {length} with their evaluations: {found}. ~: counted work over published speeds and "
        "estimates of the card (configs/gpus.yaml), off by a factor of two at times."
    )


def _deadline(config: CellConfig, deadline: float, known: Timing | None) -> str:
    hours = f"{deadline / 3600:.3g} h"
    if known is None:
        return (
            f"deadline {hours}: the seconds of a step are not known for this model and batch. Measure them: "
            f"python -m bench profile --model {config.model.name} --methods {trained(config).method.name} "
            f"--batch {trained(config).train.batch} --measure, on the machine that will run."
        )
    return (
        f"deadline {hours}: {int(deadline / known.seconds)} optimizer steps at {known.seconds:.3g} s each "
        f"({known.source})"
    )
