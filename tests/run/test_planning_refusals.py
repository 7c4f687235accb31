"""What settings, plans and batches cannot be together is refused at planning."""

from pathlib import Path
from typing import get_args

import pytest

from bench.base import registry
from bench.base.errors import BenchError
from bench.experiment.request import Options, build
from bench.experiment.resolve import Cell, resolve_all
from bench.models.config import SOLVERS, SolverName
from bench.run import preflight
from bench.run.experiment import plan

pytestmark = pytest.mark.silent


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("eval.skip=338", r"eval\.skip: 338 leaves nothing .* 'emoji' has 338 held-out prompts"),
        ("eval.prompts=100000", r"eval\.prompts: 100000 are not there: .* null takes all"),
    ],
)
def test_more_held_out_prompts_than_there_are_is_an_error(settings: str, told: str) -> None:
    with pytest.raises(BenchError, match=told):
        resolve_all(build(Options(methods="ddpo", settings=(settings,))).combinations)
    cells = resolve_all(build(Options(methods="ddpo", settings=("eval.skip=337",))).combinations)
    assert cells[0].config.eval.skip == 337  # the model's own file says how many at most


def test_own_file_with_fewer_prompts_than_the_models_file_wants_is_no_error(tmp_path: Path) -> None:
    prompts = tmp_path / "few.txt"
    prompts.write_text("".join(f"a {n} house\n" for n in range(20)))
    (base, _) = resolve_all(build(Options(methods="ddpo", prompts=str(prompts))).combinations)
    assert base.config.eval.prompts == 32


@pytest.mark.parametrize(
    ("model", "solver", "taken"),
    [("tiny", "flow_sde", "ddim, dpmpp"), ("tiny-flow", "ddim", "euler, flow_sde, flow_cps")],
)
def test_solver_that_the_models_family_does_not_take_is_refused_with_those_that_it_takes(
    model: str, solver: str, taken: str
) -> None:
    def cells(name: str) -> list[Cell]:
        options = Options(methods="full_bp", model=model, settings=(f"model.solver={name}",))
        return resolve_all(build(options).combinations)

    with pytest.raises(BenchError, match=rf"'{model}' is of family .* solvers are {taken}, and not {solver}"):
        cells(solver)
    assert all(cells(name) for name in taken.split(", "))


def test_every_family_of_models_says_which_solvers_it_takes() -> None:
    assert set(SOLVERS) == set(registry.own("model"))
    assert {name for names in SOLVERS.values() for name in names} == set(get_args(SolverName))


def test_batch_that_does_not_divide_among_processes_is_an_error(tmp_path: Path) -> None:
    experiment = build(Options(methods="ddpo", out=tmp_path))
    with pytest.raises(BenchError, match=r"'ddpo': its batch of 8 samples .* among 3 processes"):
        plan(experiment, force=False, processes=3)
    assert plan(experiment, force=False, processes=4).todo


@pytest.mark.parametrize(
    ("method", "settings", "told"),
    [
        (
            "full_bp",
            (),
            r"no step of this one injects any: --set full_bp\.eta=1, or --set full_bp\.train\.kl=0",
        ),
        ("nft", (), r"nft runs without, .*: --set nft\.train\.kl=0, and nft\.kl=… for the weight of its own"),
        ("awm", (), r"awm runs without, .*: --set awm\.train\.kl=0, and awm\.kl=… "),
        ("draft_lv", (), r"draft_lv runs without, so train\.kl does not apply: --set draft_lv\.train\.kl=0$"),
        ("refl", (), r"refl runs without, so train\.kl does not apply: --set refl\.train\.kl=0$"),
        (
            "full_bp",
            ("model.solver=euler",),
            r"any: --set full_bp\.eta=1 --set model\.solver=flow_sde instead of euler, or --set full_bp",
        ),
        (
            "vader",
            ("model.solver=euler", "vader.eta=1"),
            r"any: --set model\.solver=flow_sde instead of euler, or --set vader\.train\.kl=0",
        ),
        ("adjoint_matching", (), r"has the KL in its own objective.* --set train\.kl=0"),
    ],
)
def test_kl_term_that_a_methods_plans_cannot_have_is_refused_before_anything_runs(
    method: str, settings: tuple[str, ...], told: str
) -> None:
    model = "tiny-flow" if settings else "tiny"

    def check(*more: str) -> None:
        changed = ("train.kl=0.1", *settings, *more)
        options = Options(methods=f"{method},random-direction", model=model, settings=changed)
        preflight.check_plans(cell.config for cell in resolve_all(build(options).combinations))

    with pytest.raises(BenchError, match=rf"^'{method}': .*{told}"):
        check()
    check(f"{method}.train.kl=0")
    if "eta=1, or" in told:
        check(f"{method}.eta=1")


def planned(method: str, model: str, *settings: str) -> None:
    """What planning a run checks of the plans that a method draws."""
    options = Options(methods=method, model=model, settings=settings)
    preflight.check_plans(cell.config for cell in resolve_all(build(options).combinations))


@pytest.mark.parametrize("method", ["ddpo", "grpo", "reinforce"])
def test_likelihood_ratio_on_a_solver_without_noise_is_refused_before_anything_runs(method: str) -> None:
    for solver, told in (
        (
            "euler",
            r"'{}': step 0 of 10 injects no noise .*solver=flow_sde, a method that is first order there$",
        ),
        ("flow_cps", r"'{}': step 9 of 10 injects no noise .* grpo\.until=0\.9$"),
    ):
        with pytest.raises(BenchError, match=told.format(method)):
            planned(method, "tiny-flow", f"model.solver={solver}", "model.steps=10")
    planned(method, "tiny-flow", "model.solver=flow_sde")
    planned(method, "tiny")  # depends on the scheduler's file, which is the model's


def test_window_that_slides_to_a_step_without_noise_is_refused_if_training_gets_there() -> None:
    cps = ("model.solver=flow_cps", "model.steps=10", "grpo.window=2", "grpo.slide_every=3")
    with pytest.raises(BenchError, match=r"'grpo': step 9 of 10 injects no noise"):
        planned("grpo", "tiny-flow", *cps, "train.steps=100")  # the last of nine places begins at batch 24
    planned("grpo", "tiny-flow", *cps, "train.steps=24")
    planned("grpo", "tiny-flow", *cps, "train.budget=1900")  # 23 batches of eight samples
    planned("grpo", "tiny-flow", *cps, "train.steps=100", "grpo.until=0.9")


def test_first_order_steps_where_a_solver_has_no_noise_are_taken() -> None:
    planned("rlr", "tiny-flow", "model.solver=flow_cps")
    planned("grpo", "tiny-flow", "model.solver=flow_cps", "grpo.until=0.9")
    planned("full_bp", "tiny-flow", "model.solver=euler")


@pytest.mark.parametrize(
    ("method", "settings", "told"),
    [
        ("grpo", ("train.samples_per_prompt=1",), r"need another sample of its prompt.*samples_per_prompt"),
        ("nft", ("train.samples_per_prompt=1",), r"need another sample of its prompt"),
        ("awm", ("train.samples_per_prompt=1",), r"need another sample of its prompt"),
        ("reinforce", ("train.batch_size=1",), r"need another sample in the batch"),
        ("zo", ("train.batch_size=1",), r"need another sample in the batch"),
        ("grpo", ("grpo.minibatches=3",), r"divides into grpo\.minibatches=3; it has \d+ "),
        ("ddpo", ("ddpo.group=true", "train.samples_per_prompt=1"), r"ddpo\.group compares samples"),
        ("zo-antithetic", ("train.samples_per_prompt=1",), r"make train\.samples_per_prompt even"),
    ],
)
def test_batch_that_does_not_suit_the_method_is_refused_before_anything_runs(
    method: str, settings: tuple[str, ...], told: str
) -> None:
    planned(method, "tiny")
    with pytest.raises(BenchError, match=rf"^'{method}': .*{told}"):
        planned(method, "tiny", *settings)


def test_kl_term_of_a_chain_that_is_noisy_in_part_is_taken() -> None:
    options = Options(methods="random-direction,grpo-mix", settings=("train.kl=0.1",))
    preflight.check_plans(cell.config for cell in resolve_all(build(options).combinations))
