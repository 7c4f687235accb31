"""Tables and figures of the RLR paper beside one's own cells, as texts: columns, remarks, what is missing."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.base.columns import NONE, Column, texts
from bench.report.load import Results
from bench.report.paper import Entry, View, number, their_gain, why_no_difference
from bench.report.paper_cells import Candidate, candidates, made_for
from bench.report.paper_tables import FIGURES, SCALES, PaperLine, Quantity
from bench.report.stats import NOTHING, Estimate, by_picture, estimate, side_by_side
from bench.report.tables import ColumnGroup, decimals, estimates

OWN = "± 95 %"
EVALUATIONS = 6  # shown of a figure


@dataclass(frozen=True)
class Block:
    """The columns of one prompt set in groups, and `flat`, all of them for one table.

    title: `hpdv2`, empty where there is one set alone. bases: whether a line is a base model's.
    """

    title: str
    names: Column
    groups: tuple[ColumnGroup, ...]
    flat: tuple[Column, ...]
    bases: tuple[bool, ...]


@dataclass(frozen=True)
class Part:
    """What is shown of one table or figure. Texts are empty where there is nothing to say.

    notice: that another model stands in. remarks: how to read it, and what is not as in the paper. missing:
    what has no finished run; command: what makes it; typed_before: the command of the cells that are there,
    whose flags it may need.
    """

    title: str
    blocks: tuple[Block, ...]
    remarks: tuple[str, ...]
    notice: str = ""
    missing: str = ""
    command: str = ""
    typed_before: str = ""


def table_part(view: View, out: Path) -> Part:
    """One table. out: the results directory, into which the command writes."""
    entries = [entry for line in view.lines for entry in line.entries.values()]
    typed = {str(c.env["command"]) for entry in entries for c in entry.cells if "command" in c.env}
    return Part(
        view.title,
        _blocks(view),
        tuple(_remarks(view, entries)),
        _notice(view),
        _missing(view),
        _command(view, out),
        typed.pop() if len(typed) == 1 else "",
    )


def _blocks(view: View) -> tuple[Block, ...]:
    prompts = dict.fromkeys(quantity.prompts for quantity in view.table.quantities)
    names = texts("", [line.label for line in view.lines], left=True)
    bases = tuple(not line.line.methods for line in view.lines)
    made = []
    for name in prompts:
        groups = [_group(view, quantity) for quantity in view.table.quantities if quantity.prompts == name]
        flat = [
            texts(f"{group.title}: {column.header}", column.cells)
            for group in groups
            for column in group.columns[1:]
        ]
        seeds = [
            sorted(set(some) - {NONE}) for some in zip(*(g.columns[0].cells for g in groups), strict=True)
        ]
        ranges = ["–".join(dict.fromkeys((some[0], some[-1]))) if some else NONE for some in seeds]
        title = name if len(prompts) > 1 else ""
        made.append(Block(title, names, tuple(groups), (texts("seeds", ranges), *flat), bases))
    return tuple(made)


def _group(view: View, quantity: Quantity) -> ColumnGroup:
    """Seeds, ours, theirs and the difference; with a stand-in gains over base."""
    found, title = [line.entry(quantity) for line in view.lines], quantity.header
    score = quantity.measure == "score"
    columns = [texts("seeds", [str(entry.seeds) if entry.seeds else NONE for entry in found])]
    if view.beside.stand_in and score:
        own = view.beside.of(quantity.reward)
        gains = [their_gain(view.table, line.line, quantity) for line in view.lines]
        columns += [
            _with_interval(f"our gain {OWN}", [entry.gain for entry in found], signed=True),
            texts("their gain", [f"{gain:+.2f}" if math.isfinite(gain) else NONE for gain in gains]),
        ]
        return ColumnGroup(title if own == title else f"{title} ({own})", tuple(columns))
    digits = 0 if quantity.measure == "steps_to_target" else None if score else 2
    ours = _with_interval(f"ours {OWN}", [entry.ours for entry in found], signed=False, digits=digits)
    reached = [f"{e.reached}/{len(e.cells)} reach it" if e.cells and not e.ours.units else "" for e in found]
    theirs = [number(view.table, line.line, quantity) for line in view.lines]
    columns += [
        replace(ours, cells=tuple(a or b for a, b in zip(reached, ours.cells, strict=True))),
        texts("theirs", [f"{x:{'.2f' if score else 'g'}}" if math.isfinite(x) else NONE for x in theirs]),
    ]
    if any(entry.difference.units for entry in found):
        differences = [entry.difference for entry in found]
        columns.append(_with_interval("difference", differences, signed=True, digits=digits))
    return ColumnGroup(title, tuple(columns))


def _with_interval(header: str, found: Sequence[Estimate], signed: bool, digits: int | None = None) -> Column:
    """`27.31 ± 0.42`, the latter half of the 95 % interval."""
    halves = [replace(one, se=(one.high - one.low) / 2) for one in found]
    return estimates(header, halves, signed, digits=decimals(found) if digits is None else digits)


def _remarks(view: View, entries: Sequence[Entry]) -> list[str]:
    scores = [quantity for quantity in view.table.quantities if quantity.measure == "score"]
    found = [_interval(entries, bool(scores), bool(view.beside.stand_in))] if entries else []
    if not view.beside.stand_in:
        found += [*_scales(view, scores), *_settings(view)]
    return [*found, *view.table.remarks]


def _interval(entries: Sequence[Entry], scores: bool, gains: bool) -> str:
    """What is ours, over what its interval is, and that theirs has none."""
    seeds = {entry.seeds for entry in entries} - {0}
    text = "Ours: mean over held-out pictures" if scores else "Ours: mean over seeds"
    if scores and gains:
        text = "Our gain: mean difference to the base model on the same pictures"
    if scores:
        text += f" ± half of its 95 % interval, over prompts{' and seeds' if seeds - {1} else ''}"
    if 1 in seeds:
        text += f"; with one seed {'over prompts only, and ' if scores else ''}another run may differ by more"
    differences = any(entry.difference.units for entry in entries)
    alone = ", so that the difference has ours alone" if differences else ""
    return f"{text}. Theirs: as printed, without an interval{alone}."


def _scales(view: View, scores: Sequence[Quantity]) -> list[str]:
    """What is known of each reward's scale, and why there is no difference where there is none."""
    found = [SCALES[quantity.reward].remark for quantity in scores]
    measured = [(line.entry(quantity), quantity) for line in view.lines for quantity in scores]
    found += [why_no_difference(q, entry.cells[0].config) for entry, q in measured if entry.cells]
    return [text for text in dict.fromkeys(found) if text]


def _settings(view: View) -> list[str]:
    """Which lines have which settings that are not the paper's."""
    lines: dict[str, list[str]] = {}
    for line in view.lines:
        if line.differing:
            lines.setdefault(", ".join(line.differing), []).append(line.label)
    said = "Not as in the paper, whose is in brackets"
    return [f"{said}: {what}: {'; '.join(labels)}." for what, labels in lines.items()]


def _notice(view: View) -> str:
    """That another model stands in, and for what."""
    if not view.beside.stand_in:
        return ""
    theirs = " and ".join(dict.fromkeys(line.model for line in view.table.lines))
    pairs: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for q in view.table.quantities for name in (q.reward, q.prompts)):
        if view.beside.of(name) != name:
            pairs.setdefault(view.beside.of(name), []).append(name)
    also = "".join(f"; {own} for {', '.join(replaced)}" for own, replaced in pairs.items())
    return (
        f"Not the paper's model: {view.beside.stand_in} stands in for {theirs}{also}. Its scores are on "
        "another scale, so no difference is shown; its gains over the base model stand beside the paper's "
        "gains."
    )


def _missing(view: View) -> str:
    quantities = view.table.quantities
    several = len({quantity.prompts for quantity in quantities}) > 1
    parts = []
    for line in view.table.lines:
        names = [
            f"{one.quantity.prompts} " * several + one.quantity.header + f" ({one.state})" * bool(one.state)
            for one in view.missing
            if one.line is line
        ]
        begun = any(one.state for one in view.missing if one.line is line)
        if names:
            whole = len(names) == len(quantities) and not begun
            parts.append(line.label if whole else f"{line.label}: {', '.join(names)}")
    total = len(view.table.lines) * len(quantities)
    return (
        f"{len(view.missing)} of {total} numbers have no finished run. {'; '.join(parts)}." if parts else ""
    )


def _command(view: View, out: Path) -> str:
    """What makes the missing ones: of methods, rewards, models and prompts only those of theirs."""
    table, of, stand_in = view.table, view.beside.of, view.beside.stand_in
    every = [(line, quantity) for line in table.lines for quantity in table.quantities]
    narrowed: dict[str, Callable[[PaperLine, Quantity], str]] = {
        "--model": lambda line, _: "" if stand_in else line.model,
        "--methods": lambda line, _: line.typed,
        "--reward": lambda _, quantity: of(quantity.reward),
        "--prompts": lambda _, quantity: of(quantity.prompts),
    }
    words = ["python -m bench run --config", table.experiment, *([view.beside.flags] if stand_in else [])]
    for flag, value in narrowed.items():
        some = dict.fromkeys(value(one.line, one.quantity) for one in view.missing)
        names = [name for name in some if name]
        if names and set(names) != {value(*pair) for pair in every} - {""}:
            words += [flag, ",".join(names)]
    return " ".join([*words, "--out", shlex.quote(str(out))])


def figure_parts(results: Results) -> list[Part]:
    """A table of held-out means for each figure, reward and model that cells were made for."""
    wanted, found, parts = made_for(results.cells), candidates(results), list[Part]()
    for figure in FIGURES:
        some: dict[str, list[Candidate]] = {}
        for one in found:
            made = figure.experiment in wanted and figure.experiment in made_for(one.group.cells)
            if made and one.finished and one.group.method in figure.methods:
                some.setdefault(f"{one.contest.reward} on {one.model}", []).append(one)
        remark = (
            f"Ours: held-out mean ± SE at an evaluation. The paper reads off its figure: {figure.claim} It "
            "publishes no numbers of it, so there is no difference."
        )
        parts += [Part(f"{figure.title}, {what}", (_means(own),), (remark,)) for what, own in some.items()]
    return parts


def _means(found: Sequence[Candidate]) -> Block:
    """Held-out means by method and evaluation."""
    steps = sorted({step for one in found for cell in one.group.cells for step in cell.eval_steps})
    if len(steps) > EVALUATIONS:
        steps = [steps[round(n * (len(steps) - 1) / (EVALUATIONS - 1))] for n in range(EVALUATIONS)]
    names = texts("at step", [one.group.label for one in found], left=True)
    columns = tuple(_column(found, step) for step in steps)
    return Block("", names, (ColumnGroup("", columns),), columns, (False,) * len(found))


def _column(found: Sequence[Candidate], step: int) -> Column:
    """Means at one evaluation, over the seeds that were evaluated there."""
    means = []
    for one in found:
        scored = [cell.scored(one.contest.reward, step) for cell in one.group.cells]
        runs = [by_picture(rows) for rows in scored if not rows.empty]
        means.append(estimate(side_by_side(runs), interval=False) if runs else NOTHING)
    return estimates(str(step), means, signed=False)
