"""The model card of an exported LoRA, in the hub's format: what it is, what it measured, what to be careful
about. The same cell gives the same text."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench.base import registry
from bench.base.columns import NONE, as_text, texts
from bench.base.labels import listed
from bench.base.units import MIB
from bench.experiment.settings import CellConfig
from bench.models.config import VIDEOS
from bench.report.export.base_model import BaseModel, base_model
from bench.report.export.usage import snippet
from bench.report.groups import Contest
from bench.report.load import CellResults
from bench.report.page import TEMPLATES
from bench.report.stats import Estimate
from bench.report.summary import Line
from bench.report.tables import collapsed, decimals, short_count
from bench.run.evaluations import DIVERSITY

FILE = "README.md"


@dataclass(frozen=True)
class Example:
    """A picture or clip of the folder, and its prompt. before: of a clip, the base model's of that noise."""

    file: str
    prompt: str
    before: str | None


@dataclass(frozen=True)
class Exported:
    """What a card is about. line: its numbers; everyone: those of all seeds of its setting.

    name: of the LoRA. place: what diffusers loads it from. kohya: the name of that file; without_kohya: why
    there is none. sheets: pictures of before and after. examples: single ones. prompt: one to try.
    """

    cell: CellResults
    config: CellConfig
    line: Line
    everyone: Estimate
    name: str
    place: str
    kohya: str | None
    without_kohya: str
    sheets: tuple[str, ...]
    examples: tuple[Example, ...]
    prompt: str

    @property
    def contest(self) -> Contest:
        """What the numbers are held against."""
        return self.line.contest


def text(exported: Exported) -> str:
    """README.md."""
    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    base = base_model(exported.config.model.config)
    method = exported.config.label
    return jinja.get_template("model_card.md.j2").render(
        it=exported,
        header=_header(exported, base).to_yaml(),
        base=base,
        method=method,
        about=_about(method),
        results=_results(exported),
        over_null=_plus_minus(exported.line.over_null),
        everyone=_plus_minus(exported.everyone),
        seeds=exported.everyone.seeds,
        cost=_cost(exported),
        cautions=cautions(exported.line),
        settings=_settings(exported.cell.config),
        shell=shlex.quote,
        code=snippet(exported.config, exported.place, exported.prompt),
        clips=exported.config.model.config.family in VIDEOS,
    )


def _about(method: str) -> str | None:
    """What a method is, in a few words; None if it is not here any more."""
    entry = registry.entries("method").get(method)
    if entry is None:
        return None
    return f"a preset of `{entry.base}`" if entry.base is not None else entry.summary()


def _header(exported: Exported, base: BaseModel) -> ModelCardData:
    """What the hub reads."""
    config = exported.config
    task = "text-to-video" if config.model.config.family in VIDEOS else "text-to-image"
    licence = {"license": base.licence.id}
    if base.licence.link is not None:
        licence |= {"license_name": str(base.licence.name), "license_link": base.licence.link}
    more: dict[str, Any] = {"base_model_relation": "adapter"} if base.repositories else {}
    if exported.examples:
        more["widget"] = [{"text": one.prompt, "output": {"url": one.file}} for one in exported.examples]
    return ModelCardData(
        base_model=_one_or_all(base.repositories),
        library_name="diffusers",
        pipeline_tag=task,
        tags=["lora", "diffusers", task, "reward-fine-tuning", config.label],
        model_name=exported.name,
        eval_results=_measured(exported, task),
        **licence,
        **more,
    )


def _one_or_all(names: Sequence[str]) -> str | list[str] | None:
    return names[0] if len(names) == 1 else list(names) or None


def _measured(exported: Exported, task: str) -> list[EvalResult]:
    """For the header's model-index: the held-out mean of every reward."""
    prompts, contest = exported.config.prompts, exported.contest
    found = {reward: contest.score(exported.line.group, reward) for reward in contest.rewards}
    return [
        EvalResult(
            task_type=task,
            dataset_type=prompts,
            dataset_name=f"{prompts}, held-out prompts",
            metric_type=reward,
            metric_name=f"{reward}{' (trained on)' if reward == contest.reward else ''}",
            metric_value=float(f"{score.mean:.6g}"),
        )
        for reward, score in found.items()
        if score.units
    ]


def _results(exported: Exported) -> str:
    """The table of rewards and diversity, before and after."""
    line, contest = exported.line, exported.contest
    rewards = [r for r in contest.rewards if r != DIVERSITY]
    rows = [(r, contest.score(line.group, r), line.gains[r]) for r in rewards]
    rows.append((DIVERSITY, line.diversity, line.diversity_change))
    rows = [row for row in rows if row[1].units]
    base = contest.base
    before = [contest.score(base, name).mean if base is not None else math.nan for name, *_ in rows]
    digits = [decimals([change]) for *_, change in rows]
    columns = [
        texts("", [f"{n} (trained on)" if n == contest.reward else n for n, *_ in rows], left=True),
        texts("base model", [_fixed(b, d) for b, d in zip(before, digits, strict=True)]),
        texts("with this LoRA", [_fixed(a.mean, d) for (_, a, _), d in zip(rows, digits, strict=True)]),
        texts("change ± SE", [_plus_minus(change) or NONE for *_, change in rows]),
        texts("95 % interval", [_interval(change) for *_, change in rows]),
    ]
    return as_text(columns)


def _fixed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else NONE


def _plus_minus(found: Estimate) -> str:
    """`+0.101 ± 0.008`; nothing where nothing was measured."""
    if not found.units:
        return ""
    digits = decimals([found])
    error = f" ± {found.se:.{digits}f}" if math.isfinite(found.se) else ""
    return f"{found.mean:+.{digits}f}{error}"


def _interval(found: Estimate) -> str:
    digits = decimals([found])
    return f"{found.low:+.{digits}f} … {found.high:+.{digits}f}" if math.isfinite(found.low) else NONE


def _cost(exported: Exported) -> str:
    """In one sentence."""
    cost, env = exported.line.cost, exported.cell.env
    device = env.get("gpu") or env.get("cpu")
    parts = [
        f"{cost.steps:.0f} optimizer steps",
        f"{short_count(cost.samples)} samples",
        f"{short_count(cost.forward_equivalents)} forward equivalents of the network",
        f"{cost.seconds:.0f} s of training",
        f"{cost.memory / MIB:.0f} MiB at the peak",
    ]
    known = [part for part in parts if not part.startswith(("nan", NONE))]
    return ", ".join([*known, *([f"on {device}"] if device else [])])


def cautions(line: Line) -> list[str]:
    """What to be careful about, as far as the numbers tell."""
    contest, trained = line.contest, line.contest.reward
    gain = line.gains[trained]
    found = [
        f"Training was on {trained} alone. A model can raise a reward without making better pictures "
        "(over-optimisation): look at them, and at the rewards that were not trained on."
    ]
    if contest.base is None:
        found.append("The base model was not evaluated beside it, so it is not known what training changed.")
    elif gain.units and not gain.low > 0:
        found.append(f"The gain in {trained} is not clearly above zero on these prompts.")
    others = {name: change for name, change in line.gains.items() if name != trained}
    if line.diversity_change.units:
        others[DIVERSITY] = line.diversity_change
    if fallen := [name for name, change in others.items() if change.high < 0]:
        found.append(f"Not trained on, and clearly lower than the base model's: {', '.join(fallen)}.")
    if steps := [collapse.step for collapse in collapsed(line)]:
        found.append(
            f"From step {steps[0]} on its pictures of a prompt were less than half as varied as the base "
            "model's: it has collapsed."
        )
    found.append(
        "The table is of one training run, with one seed: errors are over prompts only, and say nothing "
        "about another run of the method."
    )
    return found


def _settings(config: dict[str, Any]) -> Sequence[tuple[str, str]]:
    """The settings that one asks for first; config.yaml has all."""
    training, model = config["training"], config["model"]["config"]
    train = {key: value for key, value in training["train"].items() if value is not None}
    reward = training["reward"]
    parts = {
        "method": {"name": training["method"]["name"], **(training["method"].get("config") or {})},
        "reward": {"name": reward["name"], **(reward.get("config") or {})},
        "training": {**train, "seed": training["seed"], "prompts": config["prompts"]},
        "LoRA": model.get("lora") or {},
        "sampler": {key: model[key] for key in ("solver", "steps", "guidance") if key in model},
        "evaluation": config["eval"],
    }
    return [(name, listed(some)) for name, some in parts.items()]
