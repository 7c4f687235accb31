"""Two results directories, or records, held against each other: A is the reference, B what is new.

A method is worse if its mean held-out reward in B lies below that in A by more than the tolerance, with p <
0.05 for all comparisons together (Holm). Statistics: `bench.report.stats.difference`. docs/several.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from bench.base.errors import BenchError, did_you_mean
from bench.protocol import matching
from bench.protocol.matching import Alone, Names
from bench.protocol.sides import Entry, Field, Side, labels, of_prompts
from bench.protocol.workload import direction
from bench.report.stats import LEAST_UNITS, Estimate, difference, holm, pairs_of_seeds
from bench.report.tables import CLEAR


class Verdict(StrEnum):
    """What is said of a method in B."""

    WORSE = "worse"
    BETTER = "better"
    FAILS = "failing"  # more often than in A
    EQUAL = "equal"  # to the last bit
    UNCLEAR = "unclear"  # what there is may be chance
    OPEN = "unjudged"  # one seed on each side, runs that are not finished, too few prompts


BAD = (Verdict.WORSE, Verdict.FAILS)


@dataclass(frozen=True)
class Tolerance:
    """How far B may lie below A, in units of the reward. otherwise: of those that are not named."""

    by_reward: Mapping[str, float]
    otherwise: float = 0.0

    def of(self, reward: str) -> float:
        """That of a reward."""
        return self.by_reward.get(reward, self.otherwise)


def parse_tolerance(text: str) -> Tolerance:
    """`0.01`, or `clip:0.01,jpeg:0.2`. Raises BenchError."""
    named, otherwise = dict[str, float](), 0.0
    for part in text.split(","):
        name, _, number = part.rpartition(":")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise BenchError(
                f"--tolerance {text}: expected a number from 0 up, or REWARD:NUMBER with commas between"
            )
        if name:
            named[name.strip()] = value
        else:
            otherwise = value
    return Tolerance(named, otherwise)


@dataclass(frozen=True, eq=False)
class Comparison:
    """One method in both.

    paired: whether both draw the same pictures. seeds: those whose runs are pairs. difference: B − A. p: that
    it is within the tolerance, adjusted for all comparisons; nan: nothing is claimed.
    """

    place: str
    field: Field
    a: Entry
    b: Entry
    paired: bool
    seeds: tuple[int | None, ...]
    tolerance: float
    difference: Estimate
    p: float = math.nan
    verdict: Verdict = Verdict.OPEN

    @property
    def label(self) -> str:
        """The method, or both where two are compared."""
        return self.a.label if self.a.method == self.b.method else f"{self.b.label} − {self.a.label}"

    @property
    def settings_differ(self) -> list[str]:
        """Where one method has other settings in B: `train.lr 0.001 → 0.003`."""
        if self.a.method != self.b.method or self.a.settings is None or self.b.settings is None:
            return []
        return matching.changes(self.a.settings, self.b.settings)

    @property
    def equal(self) -> bool:
        """Whether both have the same finished runs, one at least, with the same scores."""
        one, other = self.a.runs, self.b.runs
        same = bool(one) and one.keys() == other.keys() and all(one[n].equals(other[n]) for n in one)
        return self.paired and same

    @property
    def one_seed(self) -> bool:
        """Whether each side has a single run, so that the interval is over prompts alone."""
        return len(self.a.runs) == len(self.b.runs) == 1


@dataclass(frozen=True, eq=False)
class Compared:
    """Everything that was found. notes: what a reader has to know besides."""

    a: Side
    b: Side
    comparisons: tuple[Comparison, ...]
    alone: tuple[Alone, ...]
    notes: tuple[str, ...]

    @property
    def alarms(self) -> list[Comparison]:
        """The methods that are worse in B, or fail there."""
        return [one for one in self.comparisons if one.verdict in BAD]


def compare(a: Side, b: Side, tolerance: Tolerance, names: Names | None = None) -> Compared:
    """Compare what both have. names: of methods in A and B; None: every method with itself.

    Raises BenchError where they have nothing in common, or one lacks a method that is named.
    """
    _check(a, b, tolerance, names)
    places, alone = matching.fields(a.fields, b.fields)
    found = list[Comparison]()
    notes = [f"{letter}: {note}" for letter, side in (("A", a), ("B", b)) for note in side.notes]
    for place, ours, theirs in places:
        pairs, rest = matching.entries(ours, theirs, names)
        alone += [Alone(side, place, entry.label) for side, entry in rest]
        notes += matching.notes(place, ours, theirs) if pairs else []
        found += [_comparison(place, ours, theirs, *pair, tolerance.of(ours.reward)) for pair in pairs]
    if not found:
        raise BenchError(
            f"{a.path} and {b.path} have no method in common that trained the same model on the same reward "
            f"and prompts.\nA has {_told(a)}\nB has {_told(b)}"
        )
    return Compared(a, b, tuple(_judged(found)), tuple(alone), tuple(notes))


def _check(a: Side, b: Side, tolerance: Tolerance, names: Names | None) -> None:
    rewards = sorted({field.reward for side in (a, b) for field in side.fields})
    for reward in tolerance.by_reward:
        if reward not in rewards:
            raise BenchError(f"--tolerance: nothing was trained on '{reward}', but on {', '.join(rewards)}")
    if names is None and a.path.resolve() == b.path.resolve():
        raise BenchError(
            f"{a.path}: A and B are the same: name another directory, or methods of this one to hold against "
            "each other, such as --methods truncated_bp:rlr"
        )
    for number, side in enumerate((a, b)):
        shown = labels(side.fields)
        known = [*shown, *(entry.method for field in side.fields for entry in field.entries)]
        for name in (pair[number] for pair in names or ()):
            if name not in known:
                hint = did_you_mean(name, known)
                raise BenchError(f"--methods: {side.path} has no '{name}'.{hint} It has {', '.join(shown)}")


def _told(side: Side) -> str:
    found = ((matching.place(field), ", ".join(labels([field]))) for field in side.fields)
    return "; ".join(f"{place}: {methods}" for place, methods in found)


def _comparison(place: str, ours: Field, theirs: Field, a: Entry, b: Entry, tolerance: float) -> Comparison:
    one, other, paired = a.runs, b.runs, ours.draws_as(theirs)
    if ours.by_prompt or theirs.by_prompt:
        one, other = of_prompts(one), of_prompts(other)
    found = difference(other, one, paired, tolerance)
    seeds = tuple(pairs_of_seeds(other, one)) if paired else ()
    compared = Comparison(place, ours, a, b, paired, seeds, tolerance, found)
    same = replace(found, mean=0.0, se=0.0, low=0.0, high=0.0, p=math.nan)
    return replace(compared, difference=same) if compared.equal else compared


def _judged(found: Sequence[Comparison]) -> list[Comparison]:
    """With p adjusted for all that something is claimed of, and verdicts."""
    claimed = [n for n, one in enumerate(found) if _claims(one)]
    p = dict(zip(claimed, holm([found[n].difference.p for n in claimed]), strict=True))
    adjusted = [replace(one, p=p.get(n, math.nan)) for n, one in enumerate(found)]
    return [replace(one, verdict=_verdict(one)) for one in adjusted]


def _claims(one: Comparison) -> bool:
    """Whether there is enough to say something. With one seed on each side that is only of these runs, and
    only beyond a tolerance: then somebody has said by how much runs may differ."""
    found = one.difference
    if one.equal or one.a.unfinished_text or one.b.unfinished_text:  # what is left may depend on how it ended
        return False
    of_runs = one.tolerance > 0 and found.units >= LEAST_UNITS and math.isfinite(found.p)
    return found.claims or of_runs


def _verdict(one: Comparison) -> Verdict:
    if one.b.failed * one.a.count > one.a.failed * one.b.count:
        return Verdict.FAILS
    if not math.isfinite(one.p):
        return Verdict.EQUAL if one.equal else Verdict.OPEN
    if one.p >= CLEAR:
        return Verdict.UNCLEAR
    return Verdict.BETTER if one.difference.mean * direction(one.field.reward) > 0 else Verdict.WORSE
