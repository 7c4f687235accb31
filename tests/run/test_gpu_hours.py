"""GPU-hours before a run: the work is what the engine reports later, the speed is the table's or a cell's."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.base import registry
from bench.base.files import append_rows
from bench.engine.engine import Engine
from bench.engine.method import Method
from bench.experiment.method_files import shipped_config
from bench.experiment.request import Options, build
from bench.experiment.resolve import Cell, resolve_all
from bench.experiment.settings import Choice, TrainConfig, Training
from bench.run import computed
from bench.run.computed import DRAWN, Counts, counted, work
from bench.run.experiment import plan, show
from bench.run.forecast import Earlier
from bench.run.gpu_hours import Hours, Speedometer
from bench.run.gpu_speeds import published
from bench.run.store import CellDir
from tests.support.toy import ToyChain
from tests.support.toys import Pattern, batch_of

STEPS, COUNT = 12, 4
TRAINED = [name for name in registry.entries("method") if registry.load("method", name).trains]


def cells(methods: str = "rlr,ddpo,zo", *settings: str, model: str = "sd14", **options: Any) -> list[Cell]:
    asked = Options(methods=methods, model=model, settings=settings, **options)
    return resolve_all(build(asked).combinations, fetch=False)


def cell(method: str, *settings: str, **options: Any) -> Cell:
    return next(c for c in cells(method, *settings, **options) if c.config.training is not None)


def training(name: str) -> Training:
    train = TrainConfig(prompts_per_step=COUNT // 2, samples_per_prompt=2)
    return Training(
        method=Choice(name=name, config={}), reward=Choice(name="jpeg", config={}), seed=0, train=train
    )


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_counted_is_what_the_engine_reports_of_the_same_batches(name: str) -> None:
    method: Method = registry.load("method", name)(shipped_config(name, "tiny"), STEPS)
    if getattr(method.config, "control", "none") != "none":
        pytest.skip("a control variate's own evaluations are left out of the count")
    found = counted(method, training(name))
    engine = Engine(ToyChain(STEPS, 3), Pattern(), seed=0, micro_batch=COUNT // 2)
    batches = [list(method.updates(engine, batch_of(COUNT, step))) for step in range(DRAWN)]
    totals = [
        sum(getattr(r, word) for reports in batches for r in reports) / DRAWN
        for word in ("forward", "backward", "again")
    ]
    assert {len(reports) for reports in batches} == {method.updates_per_batch}
    assert found is not None
    assert list(found) == pytest.approx(totals)


def test_ddpo_pulls_each_sample_back_once_per_pass() -> None:
    cls = registry.load("method", "ddpo")
    method = cls(cls.Config(inner_epochs=3, minibatches=2), STEPS)
    assert method.updates_per_batch == 6
    found = counted(method, training("ddpo"))
    assert found == Counts(COUNT * STEPS, 3 * COUNT * STEPS, 3 * COUNT * STEPS)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("full_bp", {"eta": 1.0}),
        ("vader", {"mode": "single"}),
        ("rlr", {"h": 3}),
        ("grpo", {"inner_epochs": 2}),
    ],
    ids=str,
)
def test_the_references_runs_of_a_kl_term_are_counted(name: str, settings: dict[str, Any]) -> None:
    cls = registry.load("method", name)
    method, asked = cls(cls.Config.model_validate(settings), STEPS), training(name)
    asked = asked.model_copy(update={"train": asked.train.model_copy(update={"kl": 0.1})})
    engine = Engine(ToyChain(STEPS, 3), Pattern(), seed=0, micro_batch=COUNT // 2, kl=0.1)
    batches = [list(method.updates(engine, batch_of(COUNT, step))) for step in range(DRAWN)]
    of_all = [
        sum(r.forward + r.again for reports in batches for r in reports) / DRAWN,
        sum(r.backward for reports in batches for r in reports) / DRAWN,
    ]
    found = counted(method, asked)
    assert found is not None
    assert [found.forward + found.again, found.backward] == pytest.approx(of_all)


def test_drawn_truncations_are_averaged_over_batches() -> None:
    cls = registry.load("method", "refl")
    found = counted(cls(cls.Config(), STEPS), training("refl"))
    assert found is not None and found.backward == COUNT
    assert 10 * COUNT <= found.forward <= 12 * COUNT  # m is 9, 10 or 11


def test_steps_with_a_detached_input_have_a_backward_and_those_between_them_none() -> None:
    cls = registry.load("method", "drtune")
    found = counted(cls(cls.Config(k=3, first=None), STEPS), training("drtune"))
    assert found is not None
    assert (found.forward, found.backward) == (COUNT * STEPS, 3 * COUNT)
    assert 9 * COUNT <= found.again <= 12 * COUNT  # from the first trained step on


def test_adjoint_matching_runs_the_reference_model_besides() -> None:
    cls = registry.load("method", "adjoint_matching")
    found = counted(cls(cls.Config(last=1.0), STEPS), training("adjoint_matching"))
    assert found == Counts(2 * COUNT * STEPS, COUNT * (2 * STEPS - 1), COUNT * STEPS)


def test_zo_on_sd14_by_hand() -> None:
    config, factors = cell("zo").config, published().factors
    each = 50 + factors.scoring.value
    assert work(config) == pytest.approx(1000 * 8 * each + 10 * 64 * each)
    found = Speedometer().hours(config)
    assert found is not None
    rate = published().architectures["sd14"].cards["A100"].rate
    assert found.by_card["A100"] == pytest.approx(8640 * each * factors.lora.value / rate / 3600)
    assert set(found.by_card) == {"A100", "H100", "V100"} and not found.measured


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        (("model.resolution=256",), 1 / 4),
        (("model.guidance=1",), 1 / 2),
        (("train.steps=2000",), 2.0),
        (("eval.images_per_prompt=4",), 1.0),
    ],
)
def test_work_grows_with_what_there_is_to_do(settings: tuple[str, ...], factor: float) -> None:
    before, after = (work(cell("zo", *s).config) for s in ((), settings))
    assert before is not None and after is not None
    looking = 10 * 64 * (50 + published().factors.scoring.value)
    expected = factor * before if "eval" not in settings[0] else before + looking
    assert after == pytest.approx(expected)


def test_checkpointing_runs_the_forward_of_what_is_pulled_back_once_more() -> None:
    off = work(cell("ddpo", "model.gradient_checkpointing=false").config)
    on = work(cell("ddpo").config)
    assert on is not None and off is not None
    assert on - off == pytest.approx(1000 * 8 * 50)


def test_a_budget_of_evaluations_is_the_same_work_for_any_batch() -> None:
    small, large = (cell("zo", f"train.batch_size={n}", budget="6000").config for n in (4, 16))
    assert work(small) == pytest.approx(work(large))


def test_a_budget_of_time_is_that_time_and_the_evaluation() -> None:
    found = Speedometer().hours(cell("zo", budget="2h").config)
    base = Speedometer().hours(cells("zo")[0].config)
    assert found is not None and base is not None
    assert found.by_card["H100"] == pytest.approx(2 + base.by_card["H100"])


def ran(out: Path, one: Cell, gpu: str | None, processes: int = 1) -> CellDir:
    """The directory of a cell that took 20 steps in 100 seconds."""
    directory = CellDir(out / "experiment" / "cells" / one.id)
    directory.path.mkdir(parents=True)
    directory.write_config(one.config)
    facts = json.dumps({"gpu": gpu, "processes": processes})
    (directory.path / "env.json").write_text(facts)
    row = {
        "step": 20,
        "batch": 20,
        "samples": 160,
        "seconds": 100.0,
        "nfe_forward": 16000,
        "terms": {"zo": 0},
    }
    append_rows(directory.metrics, [row])
    return directory


@pytest.mark.parametrize(("gpu", "card"), [("NVIDIA A100-SXM4-80GB", "A100"), ("Card X", "Card X")])
def test_a_cell_that_ran_on_a_card_stands_over_the_table(tmp_path: Path, gpu: str, card: str) -> None:
    ran(tmp_path, cell("zo"), gpu, processes=2)
    found = Speedometer(Earlier(tmp_path).seen).hours(cell("zo", "train.clip_norm=2").config)
    published_alone = Speedometer().hours(cell("zo").config)
    assert found is not None and published_alone is not None
    per_batch = 2 * 100 / 20  # GPU-seconds, of two cards
    assert found.by_card[card] == pytest.approx((1000 * 8 + 640) / 8 * per_batch / 3600)
    assert found.measured == {card}
    assert found.by_card["V100"] == published_alone.by_card["V100"]
    assert found.of("V100").startswith("~") and not found.of(card).startswith("~")


def test_a_cell_on_a_cpu_or_without_a_record_says_nothing_of_a_card(tmp_path: Path) -> None:
    ran(tmp_path, cell("zo"), None)
    (ran(tmp_path, cell("rlr"), "NVIDIA A100").path / "env.json").write_text("{")
    assert Speedometer(Earlier(tmp_path).seen).hours(cell("zo").config) == Speedometer().hours(
        cell("zo").config
    )


@pytest.mark.parametrize("options", [{"model": "tiny"}, {"model": "zeroscope"}])
def test_nothing_is_claimed_of_networks_that_no_table_has(options: dict[str, Any]) -> None:
    assert Speedometer().hours(cell("zo", **options).config) is None


def test_nothing_is_claimed_of_a_method_that_says_no_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    config = cell("zo").config

    def updates(self: Method, engine: Any, batch: Any) -> Any:
        engine.chain.parameters()
        yield

    monkeypatch.setattr(registry.load("method", "zo"), "updates", updates)
    assert work(config) is None
    assert work(cell("doodl").config) is None
    assert computed._plans(computed.load_method(config, config.training), batch_of(2), 0) == ()  # type: ignore[arg-type]


def test_hours_are_short() -> None:
    found = Hours({"a": 123.4, "b": 12.0, "c": 4.26, "d": 0.031}, frozenset("b"))
    assert str(found) == "a ~123, b 12, c ~4.3, d ~0.03"
    assert found.of("e") == "-"


def test_a_dry_run_shows_them_and_their_sums_and_says_that_they_are_estimates(tmp_path: Path) -> None:
    options = Options(methods="rlr,ddpo", model="sd14", out=tmp_path / "x")
    console = Console(file=io.StringIO(), width=140, record=True)
    show(console, plan(build(options), force=False, fetch=False))
    text = console.export_text()
    assert all(f"{card} h" in text for card in ("A100", "H100", "V100"))
    (total,) = (line for line in text.splitlines() if "together" in line)
    hours = [Speedometer().hours(c.config) for c in cells("rlr,ddpo")]
    sums = [sum(h.by_card[card] for h in hours if h is not None) for card in ("A100", "H100", "V100")]
    shown = [Hours({"": x}).of("") for x in sums]
    assert [word for word in total.split() if word.startswith("~")] == shown, text
    assert "configs/gpus.yaml" in text and "factor of two" in text


def test_a_dry_run_of_the_embedded_model_has_no_such_columns(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=140, record=True)
    show(console, plan(build(Options(methods="rlr", out=tmp_path / "x")), force=False, fetch=False))
    assert "GPU-hours" not in console.export_text()
