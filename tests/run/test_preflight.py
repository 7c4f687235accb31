"""What would end every cell after its model is loaded is told before anything runs."""

import shutil
import sys
from pathlib import Path

import pytest

from bench.base.errors import BenchError
from bench.base.layers import shipped
from bench.data.packages import APART
from bench.data.sources import EMBEDDED
from bench.experiment.model_files import model_file
from bench.experiment.request import Options, build
from bench.experiment.resolve import resolve_all
from bench.experiment.settings import Choice
from bench.models.config import ModelConfig
from bench.run import preflight
from bench.run.preflight import Trial
from tests.support.running import here

pytestmark = pytest.mark.silent

TINY = ModelConfig(source="embedded:sd", steps=20)
FUNCTIONS = """
import os, sys, torch

def mean(images, prompts): return images.mean((1, 2, 3))
def raises(images, prompts): raise RuntimeError("out of luck")
def nan(images, prompts): return images.mean((1, 2, 3)) * float("nan")
def one_for_all(images, prompts): return images.mean().reshape(1)
def exits(images, prompts): sys.exit(3)
def dies(images, prompts): os._exit(3)
def detached(images, prompts): return images.detach().mean((1, 2, 3))
def steep(images, prompts): return (images - images).sum((1, 2, 3)).abs().sqrt()
def wants_64(images, prompts): assert images.shape[2:] == (64, 64), images.shape; return [1.0] * len(images)
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of rewards in the working directory."""
    name = "preflight_rewards"
    (tmp_path / f"{name}.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def tried(model: ModelConfig, *rewards: Choice) -> list[str]:
    """What is wrong, found in this process."""
    return preflight.try_out([Trial(model, rewards, "emoji")])


def python(module: str, function: str, differentiable: bool = False) -> Choice:
    """A function as a reward."""
    config = {"function": f"{module}.{function}", "differentiable": differentiable}
    return Choice(name=f"python:{module}.{function}", config=config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"lora": {"targets": ["foo"]}},
            r"lora\.targets: no layer of the network is called 'foo'\. Layers that take one: conv, ",
        ),
        ({"lora": {"targets": ["o_q"]}}, r"called 'o_q'\. Did you mean 'to_q'\?"),
        ({"lora": {"targets": ["norm1"]}}, r"norm1 is of class LayerNorm, which takes no LoRA"),
        ({"lora": {"rank": 100000}}, r"model\.lora\.rank: 100000 is more than .*: at most 96"),
        ({"dtype": "float16"}, r"model\.dtype: float16 .* --set model\.dtype=bfloat16"),
        ({"vae_dtype": "float16"}, r"model\.vae_dtype: float16 overflows"),
        ({"steps": 2000}, r"model\.steps: 2000, but the model knows 1000 noise levels"),
        ({"resolution": 12}, r"model\.resolution: 12 is no multiple of 8"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_told_without_its_weights(
    settings: dict[str, object], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    model = ModelConfig.model_validate(TINY.model_dump() | settings)
    (found,) = tried(model)
    with pytest.raises(BenchError, match=told):
        raise BenchError(found)


@pytest.mark.parametrize("lost", ["unet", "vae", "text_encoder", "scheduler"])
def test_directory_that_lacks_a_part_is_named(lost: str, tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED / "sd", tmp_path / "sd", ignore=lambda _, names: {lost} & set(names))
    (found,) = tried(ModelConfig(source=f"path:{tmp_path / 'sd'}"))
    assert str(tmp_path / "sd" / lost) in found


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_part_without_weight_files_is_named(part: str, tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED / "sd", tmp_path / "sd")
    for file in (tmp_path / "sd" / part).glob("*.safetensors"):
        file.unlink()
    (found,) = tried(ModelConfig(source=f"path:{tmp_path / 'sd'}"))
    assert found.startswith(f"{tmp_path / 'sd' / part}: no weight files")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "differentiable", "told"),
    [
        ("raises", False, "the function failed: RuntimeError: out of luck"),
        ("nan", False, "is not finite on a picture of "),
        ("one_for_all", False, "expected 2 numbers, got shape [1]"),
        ("exits", False, "the function failed: SystemExit: 3"),
        ("detached", True, "what it returned has no gradient to the pictures"),
        ("steep", True, "its gradient is not finite"),
    ],
)
def test_reward_of_ones_own_is_called_once(
    functions: str, function: str, differentiable: bool, told: str
) -> None:
    (found,) = tried(TINY, python(functions, function, differentiable))
    assert told in found and f"{functions}.{function}" in found


@pytest.mark.slow
def test_good_reward_gets_pictures_of_the_models_size(functions: str) -> None:
    assert tried(TINY, python(functions, "wants_64"), python(functions, "mean", True)) == []
    (found,) = tried(TINY.model_copy(update={"resolution": 72}), python(functions, "wants_64"))
    assert "72, 72" in found


@pytest.mark.slow
def test_every_mistake_is_told_at_once(functions: str) -> None:
    trials = [
        Trial(TINY.model_copy(update={"steps": 2000}), (), "emoji"),
        Trial(TINY, (python(functions, "nan"),), "emoji"),
    ]
    assert len(preflight.try_out(trials)) == 2


def test_reward_in_a_sum_is_called_and_shipped_ones_beside_it_are_not(functions: str) -> None:
    options = Options(methods="ddpo", reward=f"clip:1,python:{functions}.mean:0.5")
    (trial,) = preflight._trials(resolve_all(build(options).combinations), True)
    assert [reward.name for reward in trial.rewards] == [f"python:{functions}.mean"]


def test_embedded_model_with_shipped_rewards_costs_nothing() -> None:
    cells = resolve_all(build(Options(methods="ddpo,rlr", settings=("model.guidance=2",))).combinations)
    assert preflight._trials(cells, True) == []


def test_shipped_model_that_is_not_here_yet_costs_nothing_until_a_setting_is_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def trials(*settings: str) -> list[Trial]:
        options = Options(methods="rlr,ddpo", model="sd14", settings=settings)
        return preflight._trials(resolve_all(build(options).combinations, fetch=False), True)

    assert trials() == trials("train.steps=3", "model.guidance=2") == []
    (trial,) = trials("model.lora.targets=[to_q]")
    assert trial.model.lora.targets == ("to_q",)


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped("models"))
def test_shipped_models_run_with_their_own_settings(name: str) -> None:
    model = ModelConfig.model_validate(model_file(name)[1].model)
    assert preflight.try_out([Trial(model, (), "emoji")]) == []


@pytest.mark.slow
def test_packages_that_this_process_has_from_elsewhere_do_not_disturb_the_trial(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The scorers' torchvision: transformers does not import where it finds one that does not fit torch."""
    broken = tmp_path / "apart" / "torchvision"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.setattr(preflight, "APART", broken.parent)
    others = [place for place in sys.path if place != str(APART)]  # which an earlier test may have added
    monkeypatch.setattr(sys, "path", [str(broken.parent), *others])
    cells = resolve_all(build(Options(methods="ddpo", settings=("model.lora.rank=2",))).combinations)
    assert preflight._trials(cells, True)
    preflight.check(cells[-1:])  # one alone starts cold


@pytest.mark.slow
def test_reward_that_ends_its_process_stops_run_and_dry_run_and_leaves_nothing(
    functions: str, tmp_path: Path
) -> None:
    for dry in ((), ("--dry-run",)):
        out = tmp_path / "out"
        done = here("run", *dry, "--methods", "ddpo", "--reward", f"python:{functions}.dies", "--out", out)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert f"calling python:{functions}.dies ended the process" in " ".join(done.stderr.split())
        assert not out.exists()
