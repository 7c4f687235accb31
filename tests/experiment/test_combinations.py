"""A request is every combination of its models, prompts, rewards, and of its runs."""

from pathlib import Path

import pytest

from bench.base.errors import BenchError
from bench.base.layers import shipped
from bench.experiment.cell_digests import MISSING
from bench.experiment.model_files import model_settings
from bench.experiment.request import Experiment, Options, build
from bench.experiment.resolve import resolve_all
from bench.experiment.settings import TrainConfig
from bench.models.config import ModelConfig
from bench.run.experiment import plan

PAPER = ("table2", "table4", "table5", "table7", "table8", "table9", "figure3", "figure5")


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return str(file)


def combinations(experiment: Experiment) -> list[tuple[str, str, str]]:
    return [(part.model, part.prompts, part.reward) for part in experiment.combinations]


def test_models_prompts_and_rewards_are_combined(tmp_path: Path) -> None:
    file = written(
        tmp_path, "model: [sd14, sd21]\nprompts: [animals, emoji]\nreward: [clip, jpeg]\nmethods: [zo]\n"
    )
    found = combinations(build(Options(config=file)))
    assert len(found) == len(set(found)) == 8


def test_every_run_takes_what_it_leaves_out_from_the_experiment(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "methods: [zo]\nreward: jpeg\nsettings: {train: {lr: 0.5}}\n"
        "runs:\n  - {}\n  - {methods: [ddpo], settings: {train: {lr: 0.25}, sampler: {steps: 6}}}\n",
    )
    first, second = (resolve_all([part]) for part in build(Options(config=file, model="tiny")).combinations)
    assert [c.config.label for c in (*first, *second)] == ["base", "zo", "base", "ddpo"]
    for cells, lr, steps in ((first, 0.5, 20), (second, 0.25, 6)):
        training = cells[1].config.training
        assert training is not None and training.reward.name == "jpeg"
        assert training.train.lr == lr and cells[1].config.model.config.steps == steps


def test_seeds_of_a_file_may_be_ranges_and_a_mistake_in_them_is_told_with_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "methods: [zo]\nseeds: 0-2,7\nruns: [{}, {seeds: 3-4, reward: jpeg}]\n")
    assert [part.seeds for part in build(Options(config=file)).combinations] == [(0, 1, 2, 7), (3, 4)]
    assert [part.seeds for part in build(Options(config=file, seeds="5-6")).combinations] == [(5, 6), (5, 6)]
    for text, told in (("4-0", "the range 4-0 runs backwards"), ("[0, 1, 0]", "0 is there twice")):
        file = written(tmp_path, f"methods: [zo]\nseeds: {text}\n")
        with pytest.raises(BenchError, match=f"mine.yaml: seeds: {told}"):
            build(Options(config=file))


def test_a_flag_stands_over_every_run(tmp_path: Path) -> None:
    file = written(tmp_path, "reward: [jpeg]\nmethods: [zo]\nruns: [{reward: clip}, {prompts: animals}]\n")
    flagged = build(Options(config=file, reward="colourfulness"))
    assert {reward for _, _, reward in combinations(flagged)} == {"colourfulness"}


def test_the_base_model_is_planned_once_for_all_rewards_that_score_it(tmp_path: Path) -> None:
    file = written(tmp_path, "reward: [clip, colourfulness]\nmethods: [zo]\n")
    labels = [cell.config.label for cell in resolve_all(build(Options(config=file)).combinations)]
    assert sorted(labels) == ["base", "zo", "zo"]


def test_a_reward_with_a_weight_is_a_sum_and_two_names_are_two_rewards() -> None:
    assert [part.reward for part in build(Options(reward="clip:1,colourfulness:0.5")).combinations] == [
        "clip:1,colourfulness:0.5"
    ]
    assert [part.reward for part in build(Options(reward="clip,colourfulness")).combinations] == [
        "clip",
        "colourfulness",
    ]


def test_sampler_keys_are_the_models_and_nothing_else() -> None:
    cells = resolve_all(build(Options(methods="zo", settings=["sampler.steps=7"])).combinations)
    assert {cell.config.model.config.steps for cell in cells} == {7}
    with pytest.raises(BenchError, match=r"sampler\.stpes: unknown key\. Did you mean 'steps'\?"):
        build(Options(methods="zo", settings=["sampler.stpes=7"]))


@pytest.mark.parametrize(("size", "expected"), [(2, (1, 2)), (8, (4, 2)), (1, (1, 1))])
def test_batch_size_is_prompts_times_samples(size: int, expected: tuple[int, int]) -> None:
    found = TrainConfig(batch_size=size)
    assert (found.prompts_per_step, found.samples_per_prompt) == expected
    assert found.batch == size
    assert found == TrainConfig.model_validate(found.model_dump()).model_copy(update={"batch_size": size})


def test_batch_size_that_is_no_multiple_is_refused() -> None:
    with pytest.raises(BenchError, match="batch_size 3 is no multiple of samples_per_prompt 2"):
        resolve_all(build(Options(methods="zo", settings=["train.batch_size=3"])).combinations)


def test_another_model_brings_its_own_rewards_for_those_that_the_experiment_names(tmp_path: Path) -> None:
    replaced = build(Options(config="table2", model="tiny"))
    assert set(combinations(replaced)) == {("tiny", "emoji", "clip"), ("tiny", "emoji", "colourfulness")}
    assert replaced.combinations[0].stood_in["hpsv2"] == "clip"
    typed = build(Options(config="table2", model="tiny", reward="aes"))
    assert {reward for _, _, reward in combinations(typed)} == {"aes"}
    assert not build(Options(config="demo")).combinations[0].stood_in


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_experiments_are_planned_without_their_weights(
    name: str, tmp_path: Path, tried_here: None
) -> None:
    planned = plan(build(Options(config=name, out=tmp_path / "x")), force=False, fetch=False)
    assert len(planned.cells) > 1
    assert all(cell.config.digests["model"].startswith(MISSING) for cell in planned.cells)
    assert not (tmp_path / "x").exists()


def test_table_2_has_all_its_cells() -> None:
    cells = resolve_all(build(Options(config="table2")).combinations, fetch=False)
    trained = [cell.config for cell in cells if cell.config.training is not None]
    assert len(trained) == 2 * 3 * 2 * 4
    assert len(cells) - len(trained) == 2 * 2  # one base per model and prompt set


def test_the_papers_video_experiment_has_its_hyperparameters(tmp_path: Path) -> None:
    """Appendix C."""
    cells = resolve_all(build(Options(config="table3", out=tmp_path / "x")).combinations, fetch=False)
    assert [cell.config.label for cell in cells][-4:] == ["doodl", "ddpo", "vader", "rlr"]
    for cell in cells:
        model = cell.config.model.config
        assert (model.solver, model.steps, model.guidance, model.lora.rank) == ("ddim", 25, 7.5, 16)
        if cell.config.training is not None and cell.config.trains:
            train = cell.config.training.train
            assert (train.batch, train.micro_batch, train.lr, train.optimizer) == (8, 1, 1e-4, "adam")
    settings = cells[-1].config.training.method.config  # type: ignore[union-attr]
    assert (settings["h"], settings["scale"], settings["eta"]) == (2, 1e-4, 0.1)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_experiments_have_its_hyperparameters(name: str) -> None:
    """Appendix C; Table 8 and Table 9 vary one of them."""
    for cell in resolve_all(build(Options(config=name)).combinations, fetch=False):
        model, training = cell.config.model.config, cell.config.training
        assert (model.solver, model.steps) in (("ddim", 50), ("dpmpp", 20))
        assert model.guidance == 7.5 and model.lora.rank == 16
        if training is None:
            continue
        train, method = training.train, training.method
        assert (train.optimizer, train.lr, train.weight_decay, train.batch) == ("adam", 5e-4, 0, 4 * 2)
        if method.name == "rlr":
            assert (method.config["h"], method.config["scale"], method.config["eta"]) == (2, 1e-3, 0.1)
        if method.name == "zo":
            assert method.config["scale"] == 1e-3


@pytest.mark.parametrize(
    ("flag", "options"),
    [
        ("model", Options(model="")),
        ("reward", Options(reward=" , ")),
        ("prompts", Options(config="table2", prompts="")),
    ],
)
def test_a_flag_that_names_nothing_says_so(flag: str, options: Options) -> None:
    with pytest.raises(BenchError, match=f"--{flag}: names nothing; leave it out"):
        build(options)


def test_table_4_restricts_the_block_to_the_papers_steps_where_dcot_is_on() -> None:
    for part in build(Options(config="table4")).combinations:
        (trained,) = [c.config.training for c in resolve_all([part], fetch=False) if c.config.training]
        # The paper's j counts steps from the image: block j … j+1 starts at our step 50 - (j + 1).
        assert trained.method.config["start_range"] == ([50 - 41, 50 - 31] if part.dcot else None)


def test_every_experiment_that_ships_is_one_of_the_tested() -> None:
    assert set(shipped("experiments")) == {*PAPER, "table3", "demo", "race"}


def test_weights_from_another_repository_are_not_sought_at_the_commit_of_the_models_own() -> None:
    def model(*settings: str) -> ModelConfig:
        options = Options(methods="ddpo", model="sd14", weights="hub:org/copy", settings=settings)
        return resolve_all(build(options).combinations, fetch=False)[0].config.model.config

    assert model_settings("sd14", ()).revision is not None
    assert (model().source, model().revision) == ("hub:org/copy", None)
    assert model("model.revision=v2").revision == "v2"
