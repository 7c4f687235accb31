"""What `bench compare` prints: tables, sentences, or JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from bench.base.columns import NONE, Column, print_columns, texts
from bench.base.console import plain
from bench.base.units import MIB
from bench.protocol.compare import BAD, Compared, Comparison, Verdict
from bench.protocol.sides import Side
from bench.protocol.workload import direction
from bench.report.origins import UNKNOWN
from bench.report.stats import LEAST_SEEDS, LEAST_UNITS
from bench.report.tables import CLEAR, decimals, estimates, intervals, probability, short_count

STYLES = {Verdict.WORSE: "red", Verdict.FAILS: "red", Verdict.BETTER: "green"}


def show(found: Compared, console: Console) -> None:
    """Print what was compared, differences and costs of every place, and what is said of them."""
    for letter, side in (("A", found.a), ("B", found.b)):
        plain(console, f"{letter}: {_origin(side)}", wrap=True)
    for place in dict.fromkeys(one.place for one in found.comparisons):
        some = [one for one in found.comparisons if one.place == place]
        console.print(f"\n[bold]{place}[/bold]", highlight=False)
        names = texts("method", [one.label for one in some], left=True)
        styles = [STYLES.get(one.verdict, "") for one in some]
        print_columns(console, names, [*_differences(some), *_costs(some)], styles)
    for text in [*found.notes, *_remarks(found)]:
        plain(console, f"note: {text}", "yellow", wrap=True)
    plain(console, _legend(found), "dim", wrap=True)
    plain(console, headline(found), "red" if found.alarms else "bold", wrap=True)


def _origin(side: Side) -> str:
    told = (side.kind, *(text for text in (side.machine, side.dates) if text != UNKNOWN))
    return f"{side.path} ({', '.join(told)})"


def _differences(some: Sequence[Comparison]) -> list[Column]:
    digits = decimals([one.difference for one in some])

    def means(header: str, values: Sequence[float]) -> Column:
        return texts(header, [f"{v:.{digits}f}" if math.isfinite(v) else NONE for v in values])

    found = [one.difference for one in some]
    return [
        texts("runs", [_runs(one) for one in some]),
        means("A", [one.a.mean for one in some]),
        means("B", [one.b.mean for one in some]),
        estimates("B − A ± SE", found, signed=True),
        texts("p", [probability(one.p) for one in some]),
        texts("B is", [str(one.verdict) for one in some], left=True),
        intervals("95 % interval", found),
    ]


def _runs(one: Comparison) -> str:
    return f"{len(one.seeds)} pairs" if one.seeds else f"{len(one.a.runs)}, {len(one.b.runs)}"


def _costs(some: Sequence[Comparison]) -> list[Column]:
    """Each as `A → B`."""
    seconds = [[_whole(costs.seconds) for costs in (one.a.costs, one.b.costs)] for one in some]
    forwards = [
        [short_count(costs.forward_equivalents) for costs in (one.a.costs, one.b.costs)] for one in some
    ]
    memory = [[_whole(costs.memory / MIB) for costs in (one.a.costs, one.b.costs)] for one in some]
    shown = (("train s", seconds), ("forwards", forwards), ("peak MiB", memory))
    return [texts(header, [" → ".join(both) for both in values]) for header, values in shown]


def _whole(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else NONE


def _remarks(found: Compared) -> list[str]:
    """What is not compared, not claimed, or not the same."""
    said: list[str] = []
    for one in found.comparisons:
        for letter, entry in (("A", one.a), ("B", one.b)):
            if entry.unfinished_text:
                said.append(
                    f"{entry.label}: in {letter} {entry.unfinished_text}: nothing is claimed of its mean."
                )
        if unpaired := _unpaired(one):
            said.append(
                f"{one.label}: {unpaired} are left out of B − A, which is over pairs of runs of the same "
                "seed; the means under A and B have all runs."
            )
        if one.settings_differ:
            said.append(f"{one.label} has other settings in B: {'; '.join(one.settings_differ)}.")
    single = [one for one in found.comparisons if one.one_seed and one.verdict is Verdict.OPEN]
    if single:
        said.append(
            f"{', '.join(dict.fromkeys(one.label for one in single))}: one seed on each side, so nothing is "
            "claimed: another run of the same method may differ by as much. Run more seeds (--seeds 0,1), or "
            "say with --tolerance by how much runs may differ: what lies beyond is judged over prompts alone."
        )
    few = [
        one for one in found.comparisons if one.difference.units < LEAST_UNITS and one.a.runs and one.b.runs
    ]
    if few:
        said.append(
            f"{', '.join(dict.fromkeys(one.label for one in few))}: fewer than {LEAST_UNITS} prompts (or "
            "pictures of the only prompt) to compare, so nothing is claimed: eval.prompts sets them."
        )
    for side in "AB":
        places: dict[str, list[str]] = {}
        for one in found.alone:
            if one.side == side:
                places.setdefault(one.place, []).extend([one.method] if one.method else [])
        if places:
            named = [f"{place}: {', '.join(some)}" if some else place for place, some in places.items()]
            said.append(f"only in {side}: {'; '.join(named)}.")
    return said


def _unpaired(one: Comparison) -> str:
    """The seeds that are no pairs where runs are taken in pairs: `seeds 7 of A, 8 of B`; empty if none."""
    if not one.seeds:
        return ""
    alone = [
        (letter, [str(seed) for seed in entry.runs if seed not in one.seeds])
        for letter, entry in (("A", one.a), ("B", one.b))
    ]
    named = ", ".join(f"{', '.join(seeds)} of {letter}" for letter, seeds in alone if seeds)
    return f"seeds {named}" if named else ""


def _legend(found: Compared) -> str:
    prompts = sorted({one.difference.units for one in found.comparisons if one.difference.units})
    over = "–".join(map(str, sorted({prompts[0], prompts[-1]}))) if prompts else "no"
    claimed = [one for one in found.comparisons if math.isfinite(one.p)]
    tolerances = {one.tolerance for one in found.comparisons}
    beyond = "" if tolerances == {0.0} else " beyond the tolerance"
    paired = all(one.paired for one in found.comparisons)
    same = " on the same prompts and noise" if paired else ""
    return (
        f"B − A: mean held-out score of the trained reward{same}, over {over} prompts; SE, interval and p "
        "have prompts and seeds as units (with one seed on each side prompts alone). p: of a "
        f"difference{beyond}, adjusted for {_times(len(claimed), 'comparison')} (Holm). Costs are means over "
        "finished runs; seconds and memory depend on the machine."
    )


def _times(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def headline(found: Compared) -> str:
    """The result in a sentence."""
    claimed = [one for one in found.comparisons if math.isfinite(one.p)]
    equal = [one for one in found.comparisons if one.verdict is Verdict.EQUAL]
    of = len(claimed) + len([one for one in found.comparisons if one.verdict is Verdict.FAILS])
    if bad := found.alarms:
        names = ", ".join(f"{one.label} ({_said(one)}, {one.place})" for one in bad)
        return f"Alarm: {len(bad)} of {of}: {names}."
    if not of and not equal:
        return "No alarm, because nothing is claimed of any method."
    text = f"No alarm in {_times(of, 'comparison')} (p < {CLEAR:g} for all together)." if of else ""
    return " ".join(filter(None, [text, f"Equal to the last bit: {len(equal)}." if equal else ""]))


def _said(one: Comparison) -> str:
    if one.verdict is Verdict.FAILS:
        return one.b.unfinished_text
    return f"{one.difference.mean:+.{decimals([one.difference])}f}"


def as_json(found: Compared) -> str:
    """The same for machines; numbers that are not known are null. Keys: docs/several.md."""
    content = {
        "format": 1,
        "a": _side(found.a),
        "b": _side(found.b),
        "comparisons": [_line(one) for one in found.comparisons],
        "only_in": [one._asdict() for one in found.alone],
        "notes": [*found.notes, *_remarks(found)],
        "alarms": len(found.alarms),
    }
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)


def _side(side: Side) -> dict[str, Any]:
    return {"path": str(side.path), "kind": side.kind, "machine": side.machine, "dates": side.dates}


def _line(one: Comparison) -> dict[str, Any]:
    found = one.difference
    return {
        "place": one.place,
        "model": one.field.model,
        "reward": one.field.reward,
        "prompts": one.field.prompts,
        "higher_is_better": direction(one.field.reward) > 0,
        "method": one.a.label,
        "method_in_b": one.b.label,
        "verdict": str(one.verdict),
        "alarm": one.verdict in BAD,
        "same_pictures": one.paired,
        "pairs_of_seeds": list(one.seeds),
        "units": found.units,
        "difference": found.mean,
        "se": found.se,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "p_holm": one.p,
        "tolerance": one.tolerance,
        "over_prompts_alone": found.seeds < LEAST_SEEDS,
        **{
            side: {
                "score": entry.mean,
                "seeds": list(entry.runs),
                "failed": entry.failed,
                "unfinished": entry.unfinished,
                **entry.costs._asdict(),
            }
            for side, entry in (("a", one.a), ("b", one.b))
        },
    }


def _plain(value: Any) -> Any:
    """Without numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
