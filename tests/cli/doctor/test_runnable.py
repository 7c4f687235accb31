"""What the doctor says of combinations of model, reward and method."""

from pathlib import Path

import pytest
from rich.console import Console

from bench.base.strict import Strict
from bench.cli.doctor import report, runnable
from bench.experiment import ingredients
from bench.experiment.model_files import model_settings
from bench.models.config import ModelConfig
from bench.models.sizes import Batches, Use, memory

CPU = runnable.Room(gpu=False, gib=16.0)
EVALUATED = ("reward pickscore", "reward hpsv2", "reward aes", "reward imagereward")  # sd14 is


def answered(model: str, reward: str, use: Use, here: runnable.Room, *present: str) -> runnable.Answer:
    setup = runnable.set_up(ingredients.model_ingredient(model))
    return runnable.answer(setup, ingredients.reward_ingredient(reward), use, here, frozenset(present))


def test_a_reward_without_gradient_excludes_the_methods_that_need_one() -> None:
    assert answered("tiny", "jpeg", "reward gradient", CPU).text == "no gradient"
    all_of_tinys = ("model tiny", "reward jpeg", "reward clip", "reward colourfulness")
    assert answered("tiny", "jpeg", "network gradient", CPU, *all_of_tinys).text.startswith("yes")
    assert runnable.classes(["rlr", "ddpo", "zo"], "tiny") == (["rlr"], ["ddpo", "zo"])


def test_rewards_that_a_model_is_evaluated_by_are_needed_and_take_memory_too() -> None:
    both = ("model sd14", "reward hpsv2")
    lacking = answered("sd14", "hpsv2", "reward gradient", CPU, *both)
    assert lacking.text == "fetch, 13.9 GiB"
    assert lacking.fix.startswith("python -m bench fetch --model sd14 --reward ")
    assert answered("sd14", "hpsv2", "reward gradient", CPU, *both, *EVALUATED).text == "yes, 13.9 GiB, slow"


def test_what_is_too_large_says_which_setting_makes_it_fit() -> None:
    def fix(gib: float, use: Use = "reward gradient") -> str:
        found = answered("sd14", "hpsv2", use, runnable.Room(gpu=True, gib=gib), "model sd14", *EVALUATED)
        assert found.text.startswith("no: ")
        return found.fix.partition(": ")[2]

    assert fix(9.5) == "--set train.micro_batch=1"
    assert fix(8.0) == "--set train.micro_batch=1 --set eval.batch=1"
    assert fix(8.0, "network gradient") == "--set eval.batch=1"
    assert "larger GPU" in fix(1.0)
    alone = fix(6.0)
    assert alone.endswith("--set 'eval.rewards=[]'")
    assert "checkpointing" not in alone  # sd14's file has it on


@pytest.mark.parametrize(
    ("use", "checkpointing", "simulated"),
    [
        ("none", True, 4.4),
        ("network gradient", False, 10.9),
        ("network gradient", True, 4.9),
        ("reward gradient", False, 15.4),
        ("reward gradient", True, 9.0),
    ],
)
def test_memory_is_that_of_the_simulation_where_there_was_one(
    use: Use, checkpointing: bool, simulated: float
) -> None:
    sd14 = model_settings("sd14", ()).model_copy(update={"gradient_checkpointing": checkpointing})
    found = memory(sd14, {"hpsv2": None}, Batches(4), use, gpu=True)
    assert found is not None
    # The simulation held the reward's image tower alone and no text encoder: 0.9 GiB less of weights.
    assert found.gib - 0.9 == pytest.approx(simulated, abs=0.1)


def test_memory_grows_with_batch_and_pixels_and_is_not_guessed() -> None:
    sd14 = model_settings("sd14", ())

    def gib(batches: Batches, **settings: int) -> float:
        found = memory(sd14.model_copy(update=settings), {"clip": None}, batches, "none", gpu=True)
        assert found is not None
        return found.gib

    one, two = gib(Batches(1)), gib(Batches(2))
    assert gib(Batches(1), resolution=1024) - one == pytest.approx(3 * (two - one))
    assert gib(Batches(1, held_out=2)) == two
    unknown = ModelConfig(source="hub:some/thing")
    assert memory(unknown, {"clip": None}, Batches(1), "none", gpu=True) is None
    sdxl = memory(model_settings("sdxl", ()), {"clip": None}, Batches(1), "none", gpu=True)
    assert sdxl is not None
    assert str(sdxl).startswith("> ")


def test_on_a_gpu_only_the_trained_reward_is_beside_the_training() -> None:
    sd14, batches = model_settings("sd14", ()), Batches(4, held_out=8)
    rewards: dict[str, Strict | None] = dict.fromkeys(("pickscore", "hpsv2", "aes", "imagereward"))
    all_there, one, on_a_cpu = (
        memory(sd14, rewards, batches, "reward gradient", gpu, trained_on)
        for gpu, trained_on in ((True, None), (True, "hpsv2"), (False, "hpsv2"))
    )
    assert all_there is not None and one is not None and on_a_cpu is not None
    assert (str(all_there), str(one)) == ("13.4 GiB", "9.9 GiB")  # the second is for a card of 16 GB
    assert on_a_cpu.gib == pytest.approx(all_there.gib + 0.5)
    evaluated = memory(sd14, rewards, Batches(1, held_out=8), "none", True, "hpsv2")
    assert evaluated is not None
    assert str(evaluated) == "8.8 GiB"  # all four are there then, and four of the eight pictures are decoded


def printed(model: str, reward: str | None, *settings: str) -> str:
    console = Console(width=80)
    with console.capture() as captured:
        report.run(console, model, reward, "rlr,ddpo", settings)
    return captured.get()


@pytest.mark.slow
def test_a_place_without_weights_is_told_and_nothing_is_said_to_help_against_it(tmp_path: Path) -> None:
    text = printed(f"path:{tmp_path / 'none'}", "clip")
    assert "bench fetch" not in text
    assert "not a directory" in " ".join(text.split())


@pytest.mark.slow
def test_the_table_is_of_the_named_rewards_and_the_list_of_all_that_a_run_loads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(runnable, "room", lambda: CPU)
    above, _, table = printed("sd14", "hpsv2").partition("can run here")
    assert "pickscore" in above
    assert "pickscore" not in table
    above, _, table = printed("sd14", "hpsv2", "eval.rewards=[]").partition("can run here")
    assert "pickscore" not in above
    assert "python -m bench fetch --model sd14 --reward hpsv2 --set 'eval.rewards=[]'" in table
    assert "--weights random" in table


def test_what_makes_a_model_fit_names_rewards_only_where_they_differ() -> None:
    def told(*rewards: str, gib: float) -> str:
        console = Console(width=80)
        with console.capture() as captured:
            setups = [runnable.set_up(ingredients.model_ingredient("sd14"))]
            scorers = [ingredients.reward_ingredient(name) for name in rewards]
            room = runnable.Room(True, gib)
            found = runnable.ask(setups, scorers, ["reward gradient"], room)
            runnable.show(console, found, scorers, room)
        return captured.get()

    assert "sd14, gradients with any reward: --set train.micro_batch=1\n" in told("hpsv2", "aes", gib=8.8)
    assert "sd14, gradients with clipscore: --set" in told("hpsv2", "clipscore", gib=9)
