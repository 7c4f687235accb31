"""What the names in a cell's settings stand for: digests of weights and prompts, or what is not here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from bench.base import registry
from bench.base.errors import BenchError
from bench.base.strict import Strict
from bench.data import digests, prompts, sources
from bench.data.need import HasSource, Need, needs_of
from bench.data.prompts import PromptSet, dcot
from bench.data.prompts.dcot import DcotConfig
from bench.experiment.model_files import RANDOM
from bench.experiment.settings import Choice
from bench.models.config import ModelConfig

MISSING = "missing "  # begins what stands for the digest of something that is not on this machine


@dataclass(frozen=True)
class Absent:
    """Something that a cell cannot run without and that is not on this machine.

    kind: what needs it; with `dcot`, texts that the language model `source` has yet to write. name: which
    reward or prompt set; empty for the cell's own model and prompts. source: where it would come from.
    """

    kind: Literal["model", "reward", "prompts", "dcot"]
    name: str
    source: str


class CellDigests:
    """Finds, or fetches, what cells need, and says which it is.

    found: name of the need → digest; `missing …` for what is not here, which `absent` lists.
    """

    def __init__(self, fetch: bool) -> None:
        self.fetch, self.found, self.absent = fetch, dict[str, str](), list[Absent]()

    def add_prompts(self, name: str, decomposed: DcotConfig | None) -> PromptSet | None:
        """The prompts and, with DCoT, what they are decomposed into. Returns them; None: absent."""
        for need in prompts.needs(name):
            if not self.fetch and sources.find(need) is None:
                self.found["prompts"] = f"{MISSING}{name}"
                self.absent.append(Absent("prompts", name, need.source or ""))
                return None
            sources.locate(need)
        texts = prompts.load(name)
        self.found["prompts"] = digests.text_digest((*texts.train, "", *texts.eval))
        if decomposed is None:
            return texts
        wanted = (*texts.train, *texts.eval)
        if not self.fetch and decomposed.llm and len(dcot.known(wanted, decomposed)) < len(wanted):
            self.found["dcot"] = f"{MISSING}{decomposed.llm}"  # a plan asks no language model
            self.absent.append(Absent("dcot", "", decomposed.llm))
        else:
            self.found["dcot"] = dcot.digest(dcot.stages(wanted, decomposed))
        return texts

    def add_code(self, name: str, config: Strict) -> None:
        """What is in no file of weights: code, and which random numbers stand for weights."""
        if isinstance(config, digests.HasDigest) and (code := config.digest()):
            self.found[name] = code
        place = (config.source or "") if isinstance(config, HasSource) else ""
        if not place.startswith(f"{RANDOM}:"):
            return
        if not isinstance(config, ModelConfig):
            self.found[name] = place
        elif config.path is None:
            from bench.models.random_weights import architecture

            shapes = architecture(place.removeprefix(f"{RANDOM}:"))
            self.found[name] = f"{RANDOM}:{digests.digest(shapes, ('*.json',))}"

    def add_files(self, name: str, section: str, config: Strict) -> None:
        """Every need of a model or a reward. section: what --set calls it."""
        for need in needs_of(config, name, section):
            directory = sources.locate(need) if self.fetch else sources.find(need)
            if directory is None:
                self.found[need.name] = f"{MISSING}{need.source}"
                self.absent.append(_absent(need))
            elif need.kind == "hub":  # a snapshot holds what others asked for, too
                self.found[need.name] = digests.digest(directory, need.files, need.ignored)
            else:
                self.found[need.name] = digests.digest(directory)


def check_unchanged(
    recorded: Mapping[str, str],
    prompt_set: str,
    rewards: Iterable[Choice],
    decomposed: DcotConfig | None = None,
) -> None:
    """Raises BenchError if prompts, their decompositions or a reward's code are not those any more whose
    digests were recorded when the work was planned: to go on would mix two things under one name."""
    now = CellDigests(fetch=False)
    now.add_prompts(prompt_set, decomposed)
    for choice in rewards:
        config = registry.load("reward", choice.name).Config.model_validate(choice.config)
        now.add_code(f"reward {choice.name}", config)
    for name, digest in now.found.items():
        before = recorded.get(name, digest)
        if digest != before and not digest.startswith(MISSING) and not before.startswith(MISSING):
            what = f"prompts '{prompt_set}'" if name == "prompts" else name
            raise BenchError(
                f"{what}: changed since this was planned (digest {before}, now {digest}), and results of the "
                "two would be mixed. Undo the change to go on; or plan anew, by the same command as before"
            )


def _absent(need: Need) -> Absent:
    """`reward aes clip` is a need of the reward aes, `reward … term 1 aes clip` that of a sum's term."""
    if need.name.partition(" ")[0] == "model":
        return Absent("model", "", need.source or "")
    _, _, name = need.name.partition(" ")
    if " term " in name:
        name = name.partition(" term ")[2].partition(" ")[2]
    return Absent("reward", name.partition(" ")[0], need.source or "")
