"""Whether a record's tuning keeps the protocol: equally many trials from each method's own search space."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.base import registry
from bench.experiment.search import Law, draws
from bench.protocol.faults import ANEW, GO_ON, Fault, at, same
from bench.protocol.measures import direction
from bench.protocol.reading import CHOSEN, DONE, ENDED, TRIALS, Choice, Suite, Tables, Trial
from bench.protocol.tune import FIRST_SEED
from bench.protocol.workload import Workload


def tuning_faults(suite: Suite, name: str, tables: Tables, workload: Workload) -> Iterator[Fault]:
    """Faults of trials.csv and chosen.yaml of one workload."""
    path, methods = tables.folder / TRIALS, suite.takes_part(name)
    for trial in tables.trials:
        if trial.method not in methods or trial.study >= suite.studies or trial.trial >= suite.trials:
            what = f"{_named(trial)}: suite.yaml knows no such trial"
            yield Fault(at(path, trial.line), what, ANEW)
        else:
            yield from _trial(suite, trial, at(path, trial.line))
    if tables.chosen is None:
        yield Fault(at(tables.folder / CHOSEN), "is not there", GO_ON, missing=True)
    elif tables.chosen.reward != workload.reward:
        what = f"chosen by {tables.chosen.reward}, and the workload's reward is {workload.reward}"
        yield Fault(f"{tables.folder / CHOSEN}: reward", what, ANEW)
    for method in methods:
        for study in range(suite.studies):
            trials = [t for t in tables.trials if (t.method, t.study) == (method, study)]
            yield from _study(suite, tables, method, study, trials)
            ended = len(trials) == suite.trials and all(trial.state in ENDED for trial in trials)
            if tables.chosen is not None and ended:
                yield from _choice(tables, method, study, trials, direction(workload.reward))


def _named(trial: Choice) -> str:
    return f"{trial.method}, study {trial.study}, trial {trial.trial}"


def _trial(suite: Suite, trial: Trial, where: str) -> Iterator[Fault]:
    """Of one trial by itself."""
    if trial.state not in ENDED:
        yield Fault(where, f"{_named(trial)}: {trial.state}", GO_ON, missing=True)
    elif (trial.state == DONE) is (trial.score is None):
        yield Fault(where, f"{_named(trial)}: a trial has a score if it is done, and only then", ANEW)
    if trial.seed < FIRST_SEED:
        what = f"{_named(trial)}: seed {trial.seed} is one of comparisons"
        yield Fault(where, what, f"tune on seeds from {FIRST_SEED} up, as `bench suite` does")
    laws = suite.search.get(trial.method, {})
    settings = _flat(trial.settings, laws)
    if settings.keys() != laws.keys():
        own, declared = (", ".join(names) or "nothing" for names in (settings, laws))
        what = f"{_named(trial)}: tunes {own}, and its search space is of {declared}"
        yield Fault(where, what, "draw trials with `bench suite`")
    for key in sorted(settings.keys() & laws.keys()):
        if not laws[key].holds(settings[key]):
            what = f"{_named(trial)}: {key}={settings[key]} is outside its search space"
            yield Fault(where, what, "draw trials with `bench suite`")


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


def _study(suite: Suite, tables: Tables, method: str, study: int, trials: Sequence[Trial]) -> Iterator[Fault]:
    """Of a study as a whole: how many trials, and whether they are the ones that its method's space gives."""
    path, numbers = tables.folder / TRIALS, [trial.trial for trial in trials]
    for number in range(suite.trials):
        count = numbers.count(number)
        if count != 1:
            what = f"{method}, study {study}, trial {number} is {'not there' if not count else 'there twice'}"
            yield Fault(at(path), what, GO_ON if not count else ANEW, missing=not count)
    if method not in registry.entries("method"):
        return
    drawn = draws(method, suite.trials, study)
    for trial in trials:
        if trial.trial < suite.trials and not same(drawn[trial.trial], trial.settings):
            what = f"{_named(trial)}: its settings are not those that the search space draws"
            yield Fault(at(path, trial.line), what, "draw trials with `bench suite`")


def _choice(tables: Tables, method: str, study: int, trials: Sequence[Trial], sign: int) -> Iterator[Fault]:
    """The choice of a study that has ended is its best trial, as trials.csv has it; of misses alone there is
    none."""
    assert tables.chosen is not None  # called only then
    where = f"{tables.folder / CHOSEN}: methods.{method}, study {study}"
    found = [c for c in tables.chosen.methods.get(method, ()) if c.study == study]
    best = max((sign * t.score for t in trials if t.score is not None), default=None)
    if not found and best is not None:
        yield Fault(where, "nothing is chosen yet", GO_ON, missing=True)
    elif len(found) > (best is not None):
        what = f"{len(found)} choices, and {'a trial has' if best is not None else 'no trial has'} a score"
        yield Fault(where, what, ANEW)
        return
    for choice in found:
        trial = next((t for t in trials if t.trial == choice.trial), None)
        if trial is None:
            yield Fault(where, f"{TRIALS} has no trial {choice.trial}", ANEW)
        elif not (same(trial.settings, choice.settings) and same(trial.score, choice.score)):
            yield Fault(where, f"trial {choice.trial} is another one in {TRIALS}", ANEW)
        elif trial.score is None or not math.isclose(sign * trial.score, best or 0.0, rel_tol=1e-5):
            yield Fault(where, f"trial {choice.trial} is not the best one", ANEW)
