"""Whether a record's tuning keeps the protocol: equally many trials from each method's own search space."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.base import registry
from bench.experiment.search import Law, draws
from bench.protocol.faults import ANEW, Fault, at, not_yet, once, same
from bench.protocol.reading import CHOSEN, DONE, ENDED, TRIALS, Choice, Suite, Tables, Trial
from bench.protocol.tune import FIRST_SEED, TUNED_ON
from bench.protocol.workload import Workload, direction

DRAW = "draw trials with `bench suite`"


def tuning_faults(suite: Suite, name: str, tables: Tables, workload: Workload) -> Iterator[Fault]:
    """Faults of trials.csv and chosen.yaml of one workload."""
    path, methods, chosen = tables.folder / TRIALS, suite.takes_part(name), tables.chosen
    for trial in tables.trials:
        where = at(path, trial.line)
        if trial.method not in methods or trial.study >= suite.studies or trial.trial >= suite.trials:
            yield Fault(where, f"{trial.name}: suite.yaml knows no such trial")
            continue
        if trial.state not in ENDED:
            yield not_yet(where, f"{trial.name}: {trial.state}")
        for what, do in _trial(suite.search.get(trial.method, {}), trial):
            yield Fault(where, f"{trial.name}: {what}", do)
    where = tables.folder / CHOSEN
    if chosen is None:
        yield not_yet(at(where), "is not there")
    else:
        for key in TUNED_ON:
            ours, theirs = getattr(chosen, key), getattr(workload, key)
            if ours is not None and ours != theirs:
                yield Fault(f"{where}: {key}", f"is {ours}, and {theirs} in the workload")
    for method in methods:
        for study in range(suite.studies):
            trials = [t for t in tables.trials if (t.method, t.study) == (method, study)]
            for number in range(suite.trials):
                count = sum(trial.trial == number for trial in trials)
                yield from once(path, f"{method}, study {study}, trial {number}", count)
            if method in registry.entries("method"):
                yield from _drawn(draws(method, suite.trials, study), trials, tables)
            ended = len(trials) == suite.trials and all(trial.state in ENDED for trial in trials)
            if chosen is not None and ended:
                choices = [choice for choice in chosen.methods.get(method, ()) if choice.study == study]
                place = f"{where}: methods.{method}, study {study}"
                yield from _choice(place, choices, trials, direction(workload.reward))


def _trial(laws: Mapping[str, Law], trial: Trial) -> Iterator[tuple[str, str]]:
    """(what is wrong, what to do) of one trial by itself. laws: its method's search space."""
    if trial.state in ENDED and (trial.state == DONE) is (trial.score is None):
        yield "a trial has a score if it is done, and only then", ANEW
    if trial.seed < FIRST_SEED:
        do = f"tune on seeds from {FIRST_SEED} up, as `bench suite` does"
        yield f"seed {trial.seed} is one of comparisons", do
    settings = _flat(trial.settings, laws)
    if settings.keys() != laws.keys():
        own, declared = (", ".join(names) or "nothing" for names in (settings, laws))
        yield f"tunes {own}, and its search space is of {declared}", DRAW
    for key in sorted(settings.keys() & laws.keys()):
        if not laws[key].holds(settings[key]):
            yield f"{key}={settings[key]} is outside its search space", DRAW


def _flat(tree: Mapping[str, Any], laws: Mapping[str, Law], above: str = "") -> dict[str, Any]:
    """Dotted setting → value. A value may be a mapping where the space says so."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and name not in laws:
            found |= _flat(value, laws, f"{name}.")
        else:
            found[name] = value
    return found


def _drawn(drawn: Sequence[Mapping[str, Any]], trials: Sequence[Trial], tables: Tables) -> Iterator[Fault]:
    """Trials of a study are the ones that its method's space gives."""
    for trial in trials:
        if trial.trial < len(drawn) and not same(drawn[trial.trial], trial.settings):
            what = f"{trial.name}: its settings are not those that the search space draws"
            yield Fault(at(tables.folder / TRIALS, trial.line), what, DRAW)


def _choice(where: str, found: Sequence[Choice], trials: Sequence[Trial], sign: int) -> Iterator[Fault]:
    """The choice of a study that has ended is its best trial, as trials.csv has it; of misses alone there is
    none."""
    best = max((sign * t.score for t in trials if t.score is not None), default=None)
    if not found and best is not None:
        yield not_yet(where, "nothing is chosen yet")
    elif len(found) > (best is not None):
        what = f"{len(found)} choices, and {'a trial has' if best is not None else 'no trial has'} a score"
        yield Fault(where, what)
        return
    for choice in found:
        trial = next((t for t in trials if t.trial == choice.trial), None)
        if trial is None:
            yield Fault(where, f"{TRIALS} has no trial {choice.trial}")
        elif not (same(trial.settings, choice.settings) and same(trial.score, choice.score)):
            yield Fault(where, f"trial {choice.trial} is another one in {TRIALS}")
        elif trial.score is None or not math.isclose(sign * trial.score, best or 0.0, rel_tol=1e-5):
            yield Fault(where, f"trial {choice.trial} is not the best one")
