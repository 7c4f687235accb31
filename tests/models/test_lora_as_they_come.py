"""LoRA files as other programs leave them: layers change as their makers meant, or the file is refused."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.tuners.lora import LoraLayer
from peft.utils import set_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from bench.base.errors import BenchError
from bench.models.image import ImageChain
from tests.models.test_lora_files import FILE, foreign, kohya, layers
from tests.support.pipelines import image_chain

pytestmark = pytest.mark.slow

pytestmark = pytest.mark.silent

LAYERS = ("to_q", "to_v")


def tensors_of(rank_of: dict[str, int]) -> dict[str, Tensor]:
    """Random tensors of layers that end in these names, under peft's names. The ranks are of the endings."""
    found: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(4)
    for ending, rank in rank_of.items():
        for key, value in layers(foreign([ending], rank=rank)).items():
            found[key] = torch.randn(value.shape, generator=generator)
    return found


def changes(chain: ImageChain) -> dict[str, Tensor]:
    """What the loaded adapter adds to each layer's weights."""
    return {
        name: delta(module)
        for name, module in chain.network.named_modules()
        if isinstance(module, LoraLayer) and "default" in module.lora_A
    }


def delta(layer: Any) -> Tensor:
    """What a layer of peft's adds to its weights."""
    return layer.get_delta_weight("default").detach()


def loaded(place: Path) -> ImageChain:
    chain = image_chain(steps=2)
    chain.load_lora(place)
    return chain


def saved(directory: Path, tensors: dict[str, Tensor]) -> Path:
    directory.mkdir(exist_ok=True)
    save_file(tensors, directory / FILE)
    return directory


def check(directory: Path, tensors: dict[str, Tensor], alphas: dict[str, float]) -> None:
    """Every layer changes by alpha / rank · up · down; alpha is the rank where it is not given."""
    found = changes(loaded(directory))
    for layer, change in found.items():
        down, up = (tensors[f"{layer}.lora_{side}.weight"] for side in "AB")
        scale = alphas.get(layer, len(down)) / len(down)
        torch.testing.assert_close(change, scale * up @ down, rtol=1e-4, atol=1e-4)
    assert len(found) == len(tensors) // 2


STYLES = ("kohya", "diffusers", "unet alone")


def styled(style: str, tensors: dict[str, Tensor], alphas: dict[str, float]) -> dict[str, Tensor]:
    """The tensors under a style's names, with an alpha for some layers."""
    if style == "kohya":
        named = {k: v for k, v in kohya(tensors, 1.0).items() if not k.endswith(".alpha")}
        given = {f"lora_unet_{layer.replace('.', '_')}": alpha for layer, alpha in alphas.items()}
    else:
        prefix = "unet." if style == "diffusers" else ""
        named = {f"{prefix}{key}": value for key, value in tensors.items()}
        given = {f"{prefix}{layer}": alpha for layer, alpha in alphas.items()}
    return named | {f"{layer}.alpha": torch.tensor(alpha) for layer, alpha in given.items()}


@pytest.mark.parametrize("given", ["none", "some", "all", "all differ"])
@pytest.mark.parametrize("style", STYLES)
def test_layers_without_alpha_have_scale_1_at_any_ranks(style: str, given: str, tmp_path: Path) -> None:
    tensors = tensors_of({"to_q": 4, "to_v": 8, "to_k": 8})
    every = sorted({key.partition(".lora_")[0] for key in tensors})
    chosen = {"none": [], "some": [n for n in every if n.endswith("to_q")]}.get(given, every)
    alphas = {layer: 2.0 + (n if given == "all differ" else 0) for n, layer in enumerate(chosen)}
    check(saved(tmp_path, styled(style, tensors, alphas)), tensors, alphas)


def test_alpha_of_a_layer_is_not_that_of_one_whose_name_ends_alike(tmp_path: Path) -> None:
    """peft's patterns match the ends of names: `conv_in` is the end of `down.conv_in`."""
    tensors = {f"unet.{key}": value for key, value in layers(foreign(["conv1", "time_emb_proj"])).items()}
    layer = next(key for key in tensors if "conv1.lora_A" in key).partition(".lora_A")[0]
    chain = loaded(saved(tmp_path, tensors | {f"{layer}.alpha": torch.tensor(30.0)}))
    scaled = {
        name: module.scaling["default"]
        for name, module in chain.network.named_modules()
        if name in changes(chain)
    }
    assert [name for name, scale in scaled.items() if scale != 1.0] == [layer.removeprefix("unet.")]
    assert scaled[layer.removeprefix("unet.")] == 10.0


def test_alpha_of_a_layer_that_is_not_there_is_named(tmp_path: Path) -> None:
    tensors = styled("diffusers", tensors_of({"to_q": 2}), {"mid_block.nothing": 3.0})
    with pytest.raises(BenchError, match=r"alpha of layers without tensors: mid_block\.nothing"):
        loaded(saved(tmp_path, tensors))


def peft_directory(directory: Path, **settings: Any) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """A directory as peft writes it, its settings and its tensors."""
    directory.mkdir(exist_ok=True)
    tensors = tensors_of(dict.fromkeys(LAYERS, 3))
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=list(LAYERS)).to_dict() | settings
    (directory / "adapter_config.json").write_text(json.dumps(config, default=list))
    save_file(
        {f"base_model.model.{k}": v for k, v in tensors.items()}, directory / "adapter_model.safetensors"
    )
    return directory, config, tensors


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": False},
        {"use_rslora": True},
        {"alpha_pattern": {"attn1.to_q": 30}},
        {"lora_dropout": 0.5},
        {"fan_in_fan_out": True},
        {"task_type": "FEATURE_EXTRACTION", "base_model_name_or_path": "some/where", "a_new_one": None},
    ],
    ids=str,
)
def test_settings_of_peft_that_are_taken_mean_what_they_mean_to_peft(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    directory, config, tensors = peft_directory(tmp_path, **settings)
    chain, unet = loaded(directory), foreign(["to_q"]).unet
    unet.delete_adapters("default")
    base = foreign(["conv1"]).unet
    config = {key: value for key, value in config.items() if key not in ("a_new_one", "eva_config")}
    if config["init_lora_weights"] in ("eva", "orthogonal"):  # needs data; its numbers are replaced anyway
        config["init_lora_weights"] = True
    unet.add_adapter(peft.LoraConfig(**config), "default")
    set_peft_model_state_dict(unet, tensors, adapter_name="default")
    found = changes(chain)
    for name, module in unet.named_modules():
        if isinstance(module, LoraLayer) and "default" in module.lora_A:
            torch.testing.assert_close(found[name], delta(module), rtol=0, atol=0)
            same = chain.network.get_submodule(f"{name}.base_layer").weight
            assert torch.equal(same, base.get_submodule(name).weight)
    drops = [m for m in chain.network.modules() if isinstance(m, torch.nn.Dropout) and m.training and m.p > 0]
    assert found and not drops


REFUSED: list[dict[str, Any]] = [
    {"init_lora_weights": "pissa"},
    {"init_lora_weights": "pissa_niter_4"},
    {"init_lora_weights": "olora"},
    {"init_lora_weights": "corda"},
    {"init_lora_weights": "loftq"},
    {"init_lora_weights": "lora_ga"},
    {"init_lora_weights": "one of tomorrow"},
    {"peft_type": "LOHA"},
    {"lora_bias": True},
    {"bias": "lora_only"},
    {"modules_to_save": ["conv_in"]},
    {"use_dora": True},
    {"layer_replication": [[0, 2]]},
    {"trainable_token_indices": [1]},
    {"use_something_of_tomorrow": True},
]


@pytest.mark.parametrize("settings", REFUSED, ids=str)
def test_settings_of_peft_that_change_the_meaning_are_refused_by_name(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    directory, _, _ = peft_directory(tmp_path, **settings)
    ((key, value),) = settings.items()
    with pytest.raises(BenchError, match=r"adapter_config.json: ") as caught:
        loaded(directory)
    assert f"{key} is {value}" in str(caught.value)


@pytest.mark.parametrize("settings", [{"init_lora_weights": "pissa"}, {"lora_bias": True}], ids=str)
def test_the_same_settings_in_diffusers_metadata_are_refused(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    pipeline = foreign(["to_q"])
    config = pipeline.unet.peft_config["default"].to_dict() | settings
    pipeline.save_lora_weights(tmp_path, unet_lora_layers=layers(pipeline), unet_lora_adapter_metadata=config)
    ((key, value),) = settings.items()
    with pytest.raises(BenchError, match=f"{FILE}: {key} is {value}"):
        loaded(tmp_path)


def test_dropout_in_diffusers_metadata_does_not_make_pictures_random(tmp_path: Path) -> None:
    pipeline = foreign(["to_q"])
    config = pipeline.unet.peft_config["default"].to_dict() | {"lora_dropout": 0.9}
    pipeline.save_lora_weights(tmp_path, unet_lora_layers=layers(pipeline), unet_lora_adapter_metadata=config)
    chain = loaded(tmp_path)
    assert not [
        m for m in chain.network.modules() if isinstance(m, torch.nn.Dropout) and m.training and m.p > 0
    ]


def test_tensors_without_a_place_and_layers_without_tensors_are_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    directory, _, tensors = peft_directory(tmp_path)
    key = min(tensors)
    without = {f"base_model.model.{k}": v for k, v in tensors.items() if k != key}
    save_file(without, directory / "adapter_model.safetensors")
    with pytest.raises(BenchError, match=f"name layers without tensors: {key}, of"):
        loaded(directory)
    elsewhere = {f"base_model.model.no_block.to_q.lora_{side}.weight": torch.ones(3, 3) for side in "AB"}
    whole = {f"base_model.model.{k}": v for k, v in tensors.items()}
    save_file(whole | elsewhere, directory / "adapter_model.safetensors")
    with pytest.raises(BenchError, match=r"no place in it for no_block.to_q.lora_A.weight, no_block.* of"):
        loaded(directory)
    assert "unexpected keys" not in capfd.readouterr().err  # peft's warning, which lists them all


@pytest.mark.parametrize(
    "key", ["conv_in.weight", "mid_block.to_q.lora_B.bias", "mid_block.x.lora_mid.weight"]
)
def test_tensors_that_are_none_of_a_lora_are_named_and_replace_nothing(key: str, tmp_path: Path) -> None:
    """peft would put a whole layer's weights in the place of the model's."""
    directory, _, tensors = peft_directory(tmp_path)
    whole = {f"base_model.model.{k}": v for k, v in (tensors | {key: torch.ones(8, 4, 3, 3)}).items()}
    save_file(whole, directory / "adapter_model.safetensors")
    with pytest.raises(BenchError, match=f"holds {key}, no tensor of a LoRA"):
        loaded(directory)
