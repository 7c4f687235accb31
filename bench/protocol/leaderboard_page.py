"""The leaderboard as a page of Markdown: over workloads first, then each workload, then the records."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.base.columns import NONE, Column, as_text, texts
from bench.base.files import write_atomically
from bench.base.labels import flat, listed
from bench.protocol.leaderboard import Leaderboard, Standing, Table, leaderboard
from bench.protocol.leaderboard_figures import BANDS, PROFILE, figures
from bench.protocol.measures import DRAWS, HELD, LARGEST_RATIO
from bench.protocol.reading import Record
from bench.protocol.workload import Workload, direction
from bench.report.groups import NULL
from bench.report.over_optimised import COLLAPSED
from bench.report.tables import CLEAR, estimates, intervals, probability, short_count

NEVER = "∞"
OVER_OPTIMISED = "†"
INTRODUCTION = (
    "Written by `python -m bench leaderboard` from the records in `results/reference`; not to be edited. How "
    "methods are compared: [protocol.md](protocol.md). How one gets here: "
    "[submit-a-method.md](submit-a-method.md).",
    "A *run* is a method with a seed and the settings that its tuning chose. *Gain*: held-out reward minus "
    "the base model's on the same prompts and starting noise. *Over null*: minus that of "
    f"`{NULL}`, a random walk, seed by seed. A gain is claimed, in **bold**, of a method that is above both "
    f"the base model and the walk (p < {CLEAR:g}). *p* is the larger of the two differences' p values, or 1 "
    "if they have opposite signs, adjusted for all methods of the table. Nothing is claimed of a method "
    "of which runs are missing. Intervals and p are conditional on the settings that were chosen: they say "
    "what other runs with these would show, not what another tuning would find.",
    "*Time*: forward equivalents until the held-out reward reaches the workload's target, median over runs, "
    "and that of the fastest and the slowest run; *reached*: in how many runs it does. A run that never "
    f"does, or that failed, takes {NEVER}, and so does the median unless more than half of the runs reach "
    "it.",
)
LINES = (
    "Lines are drawn a little apart, downwards, so that equal ones can be told. Methods that solve no "
    "workload are left out."
)


def write(
    records: Sequence[Record], workloads: Mapping[str, Workload], missing: Mapping[str, int], out: Path
) -> list[Path]:
    """Write the page to `out` and its figures to images/ beside it; returns the files.

    The same records give the same bytes. missing: record → how much of it is not there yet.
    """
    board = leaderboard(records, workloads)
    drawn = figures(board)
    pictures = {one.name: f"images/{out.stem}-{one.name}.png" for one in drawn}
    for one in drawn:
        write_atomically(out.parent / pictures[one.name], one.png)
    write_atomically(out, page(board, pictures, missing))
    return [out, *(out.parent / name for name in pictures.values())]


def page(board: Leaderboard, pictures: Mapping[str, str], missing: Mapping[str, int]) -> str:
    """The whole page. pictures: name of a drawing → its address. missing: record → how much is not there."""
    parts = [
        "# Leaderboard",
        *map(_folded, INTRODUCTION),
        *_incomplete(missing),
        *_over_workloads(board, pictures),
    ]
    for table in board.tables:
        parts += _workload(board, table, pictures)
    parts += ["## Records", *(_record(record, missing) for record in board.records)]
    return "\n\n".join(parts) + "\n"


def _incomplete(missing: Mapping[str, int]) -> list[str]:
    names = [f"`{name}`" for name, count in missing.items() if count]
    if not names:
        return []
    return [f"**Incomplete:** {', '.join(names)}. What is not there yet counts for no method."]


def _folded(text: str) -> str:
    return textwrap.fill(text, width=110, break_long_words=False, break_on_hyphens=False)


def _picture(pictures: Mapping[str, str], name: str, caption: str) -> list[str]:
    return [f"![{caption}]({pictures[name]})"] if name in pictures else []


def _over_workloads(board: Leaderboard, pictures: Mapping[str, str]) -> list[str]:
    totals, count = board.totals, len(board.tables)
    targets = count - len(board.targetless)
    columns = [
        texts("method", [_name(t.label, t.null) for t in totals], left=True),
        texts("profile", [f"{t.integral:.3f}" if t.ratios else NONE for t in totals]),
        texts(f"{HELD:.0%} over runs".replace("%", " %"), [_span(t.held) for t in totals]),
        texts("reaches the target on", [f"{t.solved} of {targets}" for t in totals]),
        texts("gain claimed on", [NONE if t.null else f"{t.improved} of {count}" for t in totals]),
    ]
    notes = [f"nobody reaches the target of {name}" for name in board.unsolved]
    notes += [f"{name} has no target" for name in board.targetless]
    said = _folded(
        "*Profile*: the share of workloads on which a method's time is at most τ times that of the fastest "
        f"method, averaged over τ from 1 to {LARGEST_RATIO:g}; 1 is the fastest everywhere. A workload that "
        "a method sits out counts as one that it does not solve. Beside it: where it lies in nine tenths of "
        f"{DRAWS:,} draws of as many runs from those that were made. *Gain claimed on*: as in the tables "
        "below, but with p adjusted for the claims of all workloads together; a table's own are for it alone."
    )
    left_out = [f"Not in the profile: {'; '.join(notes)}."] if notes else []
    figure = _picture(pictures, PROFILE, "Performance profiles: share of workloads within τ of the best time")
    figure += [_folded(LINES)] if figure else []
    return ["## Over all workloads", as_text(columns), said, *left_out, *figure]


def _span(held: tuple[float, float]) -> str:
    low, high = held
    return f"{low:.3f} … {high:.3f}" if math.isfinite(low) else NONE


def _name(label: str, null: bool) -> str:
    return f"*{label}*" if null else label


def _workload(board: Leaderboard, table: Table, pictures: Mapping[str, str]) -> list[str]:
    parts = [f"## {table.name}", _said(board, table)]
    if table.standings:
        parts.append(as_text(_budget_columns(table)))
    if table.sits_out:
        who = ", ".join(table.sits_out)
        parts.append(_folded(f"Without a gradient of the reward, these sit out: {who}."))
    curves = f"Held-out {table.workload.reward} against forward equivalents"
    parts += _picture(pictures, table.name, curves)
    if pictures and table.name in pictures:
        whose = f", of the first {BANDS} methods" if len(table.standings) > BANDS else ""
        bands = f"Mean over runs; bands{whose}: one standard error over runs."
        parts.append(_folded(f"{bands} Times in the table are medians over runs."))
    if table.standings:
        parts.append(as_text(_other_columns(table)))
        parts += _footnotes(table)
        parts.append(_settings(board, table))
    return parts


def _said(board: Leaderboard, table: Table) -> str:
    """What the workload is, and where the base model stands."""
    load = table.workload
    better = "higher" if direction(load.reward) > 0 else "lower"
    budget = load.budget if isinstance(load.budget, str) else f"{load.budget:,} forward equivalents"
    target = "no target" if load.target is None else f"target {load.target:g}"
    tables = [record.tables[table.name] for record in board.records if table.name in record.tables]
    base = [one.base(load.reward) for one in tables if math.isfinite(one.base(load.reward))]
    stands = f"; the base model has {base[0]:.4g}" if base else ""
    return _folded(
        f"`{load.model}` trained on `{load.reward}` ({better} is better) for {budget}; {target}{stands}. "
        f"{load.reported.prompts} held-out prompts, {load.images_per_prompt} pictures each."
    )


def _methods(table: Table) -> Column:
    marks = [OVER_OPTIMISED if s.over_optimised else "" for s in table.standings]
    names = [_name(s.label, s.null) + mark for s, mark in zip(table.standings, marks, strict=True)]
    return texts("method", names, left=True)


def _budget_columns(table: Table) -> list[Column]:
    """What was reached at the budget, and how soon the target was."""
    standings = table.standings
    gains = [s.gain for s in standings]
    over = estimates("over null", [s.over_null for s in standings], signed=True)
    bold = [
        f"**{text}**" if table.improved(s) else text for s, text in zip(standings, over.cells, strict=True)
    ]
    return [
        _methods(table),
        texts("runs", [_counted(s.finished, s.runs) for s in standings]),
        estimates("gain ± SE", gains, signed=True),
        intervals("95 % interval", gains),
        replace(over, cells=tuple(bold)),
        texts("p", [probability(s.p) for s in standings]),
        texts("reached", [_reached(s) for s in standings]),
        texts("time", [_time(s.time) for s in standings]),
        texts("fastest … slowest", [_extremes(s.times) for s in standings]),
    ]


def _counted(count: int, of: int) -> str:
    return str(of) if count == of else f"{count} of {of}"


def _reached(standing: Standing) -> str:
    reached = sum(math.isfinite(time) for time in standing.times)
    return f"{reached} of {len(standing.times)}" if standing.times else NONE


def _extremes(times: Sequence[float]) -> str:
    """`904 … 1.2k`, or one of them if both read the same."""
    shown = [_time(one(times)) for one in (min, max)] if times else [NONE]
    return " … ".join(dict.fromkeys(shown))


def _time(value: float) -> str:
    return NEVER if value == math.inf else short_count(value)


def _other_columns(table: Table) -> list[Column]:
    """What else became of the pictures, and what a run took."""
    standings = table.standings
    found = [_methods(table)]
    for reward in table.workload.untouched:
        found.append(estimates(f"{reward} gain", [s.untouched[reward] for s in standings], signed=True))
    if any(s.diversity.units for s in standings):
        found.append(estimates("diversity", [s.diversity for s in standings], signed=True))
    if any(s.distance.units for s in standings):
        found.append(estimates("distance", [s.distance for s in standings], signed=False, se=False))
    if any(s.collapse.runs for s in standings):
        found.append(texts("collapsed", [_collapsed(s) for s in standings]))
    found.append(texts("steps", [short_count(s.steps) for s in standings]))
    found.append(texts("seconds", [short_count(s.seconds) for s in standings]))
    return found


def _collapsed(standing: Standing) -> str:
    found = standing.collapse
    return f"{found.runs} of {found.of}, step {found.step:g}" if found.runs else NONE


def _footnotes(table: Table) -> list[str]:
    found = ["Gains in rewards that were not trained on; *diversity* as change from the base model."]
    if any(s.distance.units for s in table.standings):
        found.append("*Distance*: of a picture from the base model's of the same noise.")
    if any(s.collapse.runs for s in table.standings):
        found.append(
            f"*Collapsed*: runs whose diversity stays below {COLLAPSED:g} of the base model's to the end, "
            "and the median step from which on."
        )
    if any(s.over_optimised for s in table.standings):
        found.append(
            f"{OVER_OPTIMISED} Over-optimised: the trained reward clearly rises, every other one falls."
        )
    return [_folded(" ".join(found))]


def _settings(board: Leaderboard, table: Table) -> str:
    """The choices of all studies, folded away."""
    rows: list[tuple[str, str, str, str]] = []
    chosen = {record.name: record.tables.get(table.name) for record in board.records}
    for standing in table.standings:
        tables = chosen[standing.record]
        choices = tables.chosen.methods.get(standing.method, ()) if tables and tables.chosen else ()
        for choice in choices:
            said = ", ".join(f"{key}={value}" for key, value in flat(choice.settings).items()) or "as shipped"
            score = f"{choice.score:.4g}" if choice.score is not None else NONE
            rows.append((_name(standing.label, standing.null), str(choice.study), said, score))
    columns = [
        texts(header, [row[n] for row in rows], left=n in (0, 2))
        for n, header in enumerate(("method", "study", "settings", "held-out, tuning"))
    ]
    inside = as_text(columns) if rows else "None were chosen yet."
    return f"<details><summary>Chosen settings</summary>\n\n{inside}\n\n</details>"


def _record(record: Record, missing: Mapping[str, int]) -> str:
    """Where a record comes from, and the command that makes it again."""
    suite = record.suite
    count = missing.get(record.name, 0)
    state = (
        f" **Incomplete:** {count} lines of `python -m bench leaderboard --check` say what." if count else ""
    )
    methods = ",".join(method for method in suite.methods if method != NULL)
    command = (
        f"    python -m bench suite --methods {methods or NULL} --workloads {','.join(suite.workloads)} \\\n"
        f"        --trials {suite.trials} --studies {suite.studies} --runs {suite.seeds}"
    )
    return f"### {record.name}\n\n{_folded(listed(suite.environment) + '.' + state)}\n\n{command}"
