"""Names for the shell to complete, found without importing torch. Each function takes what was typed."""

from collections.abc import Callable, Iterable

from bench.base import devices, registry
from bench.base.layers import profiles, shipped
from bench.cli.catalogue import KINDS
from bench.data import prompts

SECTIONS = ("train", "eval", "model", "sampler", "dcot", "experiment")  # that `describe` knows besides names
Completer = Callable[[str], list[str]]


def _one(names: Callable[[], Iterable[str]]) -> Completer:
    """Completes a name."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def _several(names: Callable[[], Iterable[str]]) -> Completer:
    """Completes the last name of a list with commas, by one that is not in it yet."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        left = [name for name in names() if name not in before.split(",")]
        return [f"{before}{comma}{name}" for name in left if name.startswith(last)]

    return complete


def _methods() -> list[str]:
    return list(registry.entries("method"))


def _rewards() -> list[str]:
    return list(registry.entries("reward"))


def _models() -> list[str]:
    return list(shipped("models"))


def _prompts() -> list[str]:
    return list(prompts.BUILT_IN)


def _everything() -> list[str]:
    found = [*_methods(), *_rewards(), *_models(), *_prompts(), *shipped("experiments"), *profiles()]
    return sorted({*found, *SECTIONS})


kind = _one(lambda: KINDS)
method, methods = _one(_methods), _several(_methods)
reward, rewards = _one(_rewards), _several(_rewards)
model, models = _one(_models), _several(_models)
prompt_set, prompt_sets = _one(_prompts), _several(_prompts)
experiment = _one(lambda: shipped("experiments"))
workload, workloads = _one(lambda: shipped("workloads")), _several(lambda: shipped("workloads"))
profile = _one(profiles)
device = _one(lambda: devices.WISHES)
anything = _one(_everything)
