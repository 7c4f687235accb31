"""One table of the RLR paper beside one's own cells, as columns of formatted texts, and how to read it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.base.columns import NONE, Column, texts
from bench.report.load import BASE
from bench.report.paper import Entry, View, number, their_gain, why_no_difference
from bench.report.paper_tables import SCALES, Quantity
from bench.report.stats import Estimate
from bench.report.tables import ColumnGroup, decimals

OWN = "± 95 %"


@dataclass(frozen=True)
class Block:
    """The columns of one prompt set. title: `hpdv2, ` where there are several, else empty."""

    title: str
    names: Column
    groups: tuple[ColumnGroup, ...]
    bases: tuple[bool, ...]

    @property
    def styles(self) -> list[str]:
        """Of the lines on the terminal."""
        return ["dim" if base else "" for base in self.bases]

    @property
    def columns(self) -> list[Column]:
        """All columns, each with its group's title in its header; seeds once."""
        seeds = [
            sorted({g.columns[0].cells[n] for g in self.groups} - {NONE}) for n in range(len(self.bases))
        ]
        named = [
            texts(f"{group.title}: {column.header}", column.cells)
            for group in self.groups
            for column in group.columns[1:]
        ]
        return [texts("seeds", ["–".join((s[0], *s[1:][-1:])) if s else NONE for s in seeds]), *named]


def blocks(view: View) -> list[Block]:
    """A block for each prompt set of the table."""
    prompts = list(dict.fromkeys(quantity.prompts for quantity in view.table.quantities))
    names = texts("", [line.label for line in view.lines], left=True)
    bases = tuple(not line.line.methods for line in view.lines)
    made = []
    for name in prompts:
        groups = [_group(view, quantity) for quantity in view.table.quantities if quantity.prompts == name]
        made.append(Block(f"{name}, " if len(prompts) > 1 else "", names, tuple(groups), bases))
    return made


def _group(view: View, quantity: Quantity) -> ColumnGroup:
    """Seeds, ours, theirs and the difference; with a stand-in gains over base."""
    found = [line.entries.get(quantity.column) for line in view.lines]
    theirs = [number(view.table, line.line, quantity) for line in view.lines]
    seeds = texts("seeds", [_seeds(entry) for entry in found])
    if view.stand_in is not None and quantity.measure == "score":
        gains = [their_gain(view.table, line.line, quantity) for line in view.lines]
        ours = [entry.gain if entry else None for entry in found]
        own = view.stand_in.of(quantity.reward)
        title = quantity.header if own == quantity.header else f"{quantity.header} ({own})"
        shown = (
            texts(f"our gain {OWN}", _estimates(ours, signed=True)),
            texts("their gain", [f"{gain:+.2f}" if math.isfinite(gain) else NONE for gain in gains]),
        )
        return ColumnGroup(title, (seeds, *shown))
    digits = 0 if quantity.measure == "steps_to_target" else None if quantity.measure == "score" else 2
    columns = [
        texts(f"ours {OWN}", _ours(found, digits)),
        texts("theirs", [_printed(value, quantity) for value in theirs]),
    ]
    if any(entry is not None and entry.difference.units for entry in found):
        differences = [entry.difference if entry else None for entry in found]
        columns.append(texts("difference", _estimates(differences, signed=True, digits=digits)))
    return ColumnGroup(quantity.header, (seeds, *columns))


def _printed(value: float, quantity: Quantity) -> str:
    if not math.isfinite(value):
        return NONE
    return f"{value:g}" if quantity.measure != "score" else f"{value:.2f}"


def _seeds(entry: Entry | None) -> str:
    if entry is None or entry.cells[0].method == BASE:
        return NONE
    return str(len(entry.cells))


def _ours(found: Sequence[Entry | None], digits: int | None) -> list[str]:
    """Estimates; of a target that not every run reached, how many did."""
    cells = _estimates([entry.ours if entry else None for entry in found], signed=False, digits=digits)
    return [
        f"{entry.reached}/{len(entry.cells)} reach it" if entry and not entry.ours.units else text
        for entry, text in zip(found, cells, strict=True)
    ]


def _estimates(found: Sequence[Estimate | None], signed: bool, digits: int | None = None) -> list[str]:
    """`27.31 ± 0.42`, the latter half of the 95 % interval."""
    known = [one for one in found if one is not None and one.units]
    places = decimals(known) if digits is None else digits
    sign = "+" if signed else ""
    cells = []
    for one in found:
        if one is None or not one.units:
            cells.append(NONE)
            continue
        half = f" ± {(one.high - one.low) / 2:.{places}f}" if math.isfinite(one.low) else ""
        cells.append(f"{one.mean:{sign}.{places}f}{half}")
    return cells


def remarks(view: View) -> list[str]:
    """How to read the table, and what is not as in the paper."""
    scores = [quantity for quantity in view.table.quantities if quantity.measure == "score"]
    entries = [entry for line in view.lines for entry in line.entries.values()]
    found = [_interval(entries, bool(scores), view.stand_in is not None)] if entries else []
    if view.stand_in is None:
        found += [*_scales(view, scores), *_settings(view)]
    return [*found, *view.table.remarks]


def _settings(view: View) -> list[str]:
    """Which lines have which settings that are not the paper's."""
    lines: dict[str, list[str]] = {}
    for line in view.lines:
        if line.differing:
            lines.setdefault(", ".join(line.differing), []).append(line.label)
    return [
        f"Not as in the paper, whose is in brackets: {what}: {'; '.join(n)}." for what, n in lines.items()
    ]


def stand_in(view: View) -> str:
    """That another model stands in, and for what; empty if none does."""
    if view.stand_in is None:
        return ""
    one, table = view.stand_in, view.table
    theirs = " and ".join(dict.fromkeys(line.model for line in table.lines))
    pairs: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for q in table.quantities for name in (q.reward, q.prompts)):
        if one.of(name) != name:
            pairs.setdefault(one.of(name), []).append(name)
    also = "".join(f"; {own} for {', '.join(replaced)}" for own, replaced in pairs.items())
    return (
        f"Not the paper's model: {one.model} stands in for {theirs}{also}. Its scores are on another scale, "
        "so no difference is shown; its gains over the base model stand beside the paper's gains."
    )


def _interval(entries: Sequence[Entry], scores: bool, gains: bool) -> str:
    """What is ours, over what its interval is, and that theirs has none."""
    seeds = {len(entry.cells) for entry in entries if entry.cells[0].method != BASE}
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
    found: list[str] = [SCALES[q.reward].remark for q in scores]
    for line in view.lines:
        for quantity in scores:
            if quantity.column in line.entries:
                config = line.entries[quantity.column].cells[0].config
                found.append(why_no_difference(quantity, config))
    return [text for text in dict.fromkeys(found) if text]
