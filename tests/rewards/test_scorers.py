import importlib
import pickle
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from bench import registry
from bench.errors import BenchError
from bench.weights import needs_of
from rewards import compat
from rewards.aes import FILE as AES_FILE
from rewards.checkpoint import HashTokenizer, torch_dtype
from rewards.hpsv2 import FILES
from rewards.imagereward import FILE as IMAGEREWARD_FILE
from tests.scorers import NAMES, PROMPTS, build, core, load, media_of, pictures

PT_FILE = {"hpsv2": FILES["v2.1"], "imagereward": IMAGEREWARD_FILE, "aes": AES_FILE}
SIZES = ((64, 64), (48, 80), (300, 200))
RANDOM = {
    "hpsv2": "random:ViT-H-14",
    "imagereward": "random:BLIP-ViT-L-16",
    "pickscore": "random:ViT-H-14",
    "aes": "random:ViT-L-14",
    "clipscore": "random:ViT-L-14",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, Path]:
    return {name: build(name, tmp_path_factory.mktemp(name)) for name in NAMES}


def batch(n: int, side: int = 40) -> tuple[torch.Tensor, list[str]]:
    media = torch.cat([media_of(p) for p in pictures(*[(side, side)] * n)])
    return media, [PROMPTS[i % len(PROMPTS)] for i in range(n)]


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_reaches_every_picture_and_is_that_of_finite_differences(weights, name):
    reward = load(name, weights[name])
    media, prompts = batch(3)
    media = media.clamp(0.1, 0.9).requires_grad_()
    (slope,) = torch.autograd.grad(reward.score(media, prompts).sum(), media)
    assert torch.isfinite(slope).all()
    assert (slope.flatten(1).norm(dim=1) > 0).all()
    step = 1e-2 * slope / slope.norm()
    with torch.no_grad():
        rise = (reward.score(media + step, prompts) - reward.score(media - step, prompts)).sum()
    assert rise.item() == pytest.approx(2e-2 * slope.norm().item(), rel=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_frozen_and_nothing_drops_out(weights, name):
    reward = load(name, weights[name])
    model = reward.clip.model if hasattr(reward, "clip") else reward.model
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(m.training for m in model.modules())


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_depend_on_their_batch(weights, name):
    reward = load(name, weights[name])
    media, prompts = batch(4)
    with torch.no_grad():
        alone = torch.cat([reward.score(media[i : i + 1], prompts[i : i + 1]) for i in range(4)])
        together = reward.score(media, prompts)
        shuffled = reward.score(media.flip(0), prompts[::-1]).flip(0)
    assert together.std() > 1e-4
    assert torch.allclose(together, alone, atol=1e-5, rtol=1e-4)
    assert torch.allclose(together, shuffled, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_32_goes_through_the_network_a_chunk_at_a_time(weights, name):
    reward = load(name, weights[name], chunk=5)
    seen: list[int] = []
    core(name, reward).register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(args[0] if args else kwargs["pixel_values"])),
        with_kwargs=True,
    )
    with torch.no_grad():
        scores = reward.score(*batch(32))
    assert scores.shape == (32,) and torch.isfinite(scores).all()
    assert sum(seen) == 32 and max(seen) == 5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "half"])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_scores_in_float32_close_to_full(weights, name, dtype):
    media, prompts = batch(4)
    with torch.no_grad():
        full = load(name, weights[name]).score(media, prompts)
        half = load(name, weights[name], dtype=dtype).score(media, prompts)
    assert half.dtype == torch.float32
    tolerance = 0.01 if dtype == "float16" else 0.05
    scale = 100.0 if name in ("hpsv2", "pickscore") else 1.0
    assert (half - full).abs().max() < tolerance * scale


def test_half_is_float16_on_cuda_and_bfloat16_on_a_cpu():
    assert torch_dtype("half", torch.device("cuda")) == torch.float16
    assert torch_dtype("half", torch.device("cpu")) == torch.bfloat16


@pytest.mark.parametrize("version", ["v2.0", "v2.1"])
def test_hpsv2_is_the_packages_own_score_times_100(weights, version):
    open_clip = compat.open_clip()
    package = importlib.import_module("hpsv2.img_score")
    reward = load("hpsv2", weights["hpsv2"], version=version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, _, package.model_dict["preprocess_val"] = open_clip.create_model_and_transforms(
            "ViT-tiny-14", None, light_augmentation=True, output_dict=True
        )
        package.model_dict["model"] = model
        for image, prompt in zip(pictures(*SIZES), PROMPTS, strict=True):
            (theirs,) = package.score(image, prompt, cp=str(weights["hpsv2"] / FILES[version]))
            ours = reward.score(media_of(image), [prompt]).item()
            assert ours == pytest.approx(100 * theirs, abs=1e-4)


def test_hpsv2s_raw_scale_is_the_cosine(weights):
    media, prompts = batch(2)
    with torch.no_grad():
        raw = load("hpsv2", weights["hpsv2"], scale="raw").score(media, prompts)
        assert torch.allclose(100 * raw, load("hpsv2", weights["hpsv2"]).score(media, prompts), atol=1e-5)


def test_hpsv2_at_full_size_has_the_names_and_number_of_the_published_weights():
    with torch.device("meta"):
        model = compat.open_clip().create_model("ViT-H-14", device="meta")
    names = set(model.state_dict())
    assert len(names) == 686
    assert {"logit_scale", "visual.proj", "visual.conv1.weight", "text_projection"} <= names


def test_imagereward_is_the_packages_own_score(weights):
    reward = load("imagereward", weights["imagereward"])
    same_size, *others = pictures((224, 224), *SIZES)
    theirs = reward.model.score(PROMPTS[0], same_size)
    assert reward.score(media_of(same_size), PROMPTS[:1]).item() == pytest.approx(theirs, abs=1e-5)
    for image, prompt in zip(others, PROMPTS, strict=True):  # Pillow rounds to 8 bits after a resize
        ours = reward.score(media_of(image), [prompt]).item()
        assert ours == pytest.approx(reward.model.score(prompt, image), abs=1e-2)
    _, ranked = reward.model.inference_rank(PROMPTS[0], [same_size, *others])
    assert ranked[0] == pytest.approx(theirs, abs=1e-5)
    assert max(ranked) - min(ranked) > 0.05


@pytest.mark.parametrize("name", ["pickscore", "clipscore"])
def test_clip_rewards_are_transformers_own_scores_on_pillow(weights, name):
    directory = weights[name]
    model = CLIPModel.from_pretrained(directory).eval()
    for image, prompt in zip(pictures(*SIZES), PROMPTS, strict=True):
        tokens = CLIPTokenizer.from_pretrained(directory)([prompt], return_tensors="pt")
        with torch.no_grad():
            found = model(pixel_values=pixels_of(directory, image), **tokens)
        cosine = (found.image_embeds * found.text_embeds).sum().item()
        factor = model.logit_scale.exp().item() if name == "pickscore" else 1.0
        ours = load(name, directory).score(media_of(image), [prompt]).item()
        assert ours == pytest.approx(factor * cosine, abs=2e-3 * factor)


def pixels_of(directory: Path, image) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CLIPImageProcessor.from_pretrained(directory)(image, return_tensors="pt")["pixel_values"]


def test_aes_is_laions_predictor_as_image_reward_ships_it(weights):
    directory = weights["aes"]
    compat.image_reward()
    reference = importlib.import_module("ImageReward.models.AestheticScore").MLP(768).eval()
    reference.load_state_dict(torch.load(directory / AES_FILE, weights_only=True))
    clip = CLIPModel.from_pretrained(directory / "clip").eval()
    tokens = torch.tensor([[0, 1]])
    for image in pictures(*SIZES):
        pixels = pixels_of(directory / "clip", image)
        with torch.no_grad():
            theirs = reference(clip(pixel_values=pixels, input_ids=tokens).image_embeds).item()
        ours = load("aes", directory).score(media_of(image), ["never read"]).item()
        assert ours == pytest.approx(theirs, abs=2e-3)


@pytest.mark.parametrize("name", PT_FILE)
def test_a_weight_file_with_code_in_it_is_refused_and_the_code_not_run(weights, tmp_path, name):
    directory = shutil.copytree(weights[name], tmp_path / "weights")
    marker = tmp_path / "ran"
    torch.save({"state_dict": Malicious(marker)}, directory / PT_FILE[name])
    with pytest.raises(BenchError, match=r"holds more than weights[\s\S]*refused"):
        load(name, directory)
    assert not marker.exists()


class Malicious:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("name", PT_FILE)
@pytest.mark.parametrize("damage", ["cut", "empty", "pickle", "list", "other", "shape", "gone"])
def test_a_damaged_or_wrong_weight_file_is_named(weights, tmp_path, name, damage):
    directory = shutil.copytree(weights[name], tmp_path / "weights")
    path = directory / PT_FILE[name]
    whole = path.read_bytes()
    state = torch.load(path, weights_only=True)
    inner = state["state_dict"] if name == "hpsv2" else state
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "pickle":
        path.write_bytes(pickle.dumps({"a": 1}))
    elif damage == "list":
        torch.save([1, 2], path)
    elif damage == "other":
        torch.save({"weight": torch.zeros(2)}, path)
    elif damage == "shape":
        key = next(k for k in inner if k.endswith("weight"))
        torch.save(inner | {key: torch.zeros(7)}, path)
    else:
        path.unlink()
    with pytest.raises(BenchError, match=path.name.replace("+", r"\+")) as caught:
        load(name, directory)
    words = {"cut": "cut short", "empty": "cut short", "other": "it lacks", "shape": "another shape"}
    words |= {"gone": "not there", "list": "expected weights by name", "pickle": path.name}
    assert words[damage] in str(caught.value)


def test_a_clip_checkpoint_without_some_of_its_weights_is_refused(weights, tmp_path):
    from safetensors.torch import load_file, save_file

    directory = shutil.copytree(weights["clipscore"], tmp_path / "clip")
    state = load_file(directory / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BenchError, match=r"clipscore.*it lacks visual_projection.weight"):
        load("clipscore", directory)
    (directory / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(BenchError, match="not a usable CLIP checkpoint"):
        load("clipscore", directory)


@pytest.mark.parametrize(
    ("name", "module", "loader"),
    [("hpsv2", "hpsv2", compat.open_clip), ("imagereward", "ImageReward", compat.image_reward)],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch, tmp_path, name, module, loader
):
    loader.cache_clear()
    for found in [m for m in sys.modules if m.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, found)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BenchError, match=rf"reward {name}: needs the package[\s\S]*pip install --no-deps -r"):
        load_plain(name, tmp_path)
    loader.cache_clear()


def load_plain(name: str, directory: Path):
    cls = registry.load("reward", name)
    return cls(cls.Config(path=directory), torch.device("cpu"))


def test_image_reward_leaves_transformers_and_warnings_as_they_were():
    import transformers.modeling_utils as modeling

    before = set(vars(modeling)), set(vars(modeling.PreTrainedModel)), list(warnings.filters)
    for found in [m for m in sys.modules if m.partition(".")[0] == "ImageReward"]:
        del sys.modules[found]
    compat.image_reward.cache_clear()
    compat.image_reward()
    assert (set(vars(modeling)), set(vars(modeling.PreTrainedModel)), list(warnings.filters)) == before
    assert "ImageReward.ReFL" not in sys.modules


@pytest.mark.parametrize("name", NAMES)
def test_defaults_say_how_much_is_fetched_and_random_weights_need_nothing(name):
    config = registry.load("reward", name).Config
    needs = needs_of(config(), name, "reward")
    assert needs and all(need.gigabytes for need in needs)
    assert needs_of(config(source=RANDOM[name]), name, "reward") == ()
    assert len({need.setting for need in needs}) == len(needs)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_random_architecture_is_refused(name):
    with pytest.raises(ValueError, match=r"random:ViT-nano"):
        registry.load("reward", name).Config(source="random:ViT-nano")


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_needs_a_prompt(weights, name):
    media, prompts = batch(3)
    with pytest.raises(BenchError, match="3 images but 2 prompts"):
        load(name, weights[name]).score(media, prompts[:2])


def test_the_checksum_tokenizer_keeps_to_its_vocabulary_and_length():
    tokenizer = HashTokenizer(101, 102, 0, (1000, 30522), 8)
    found = tokenizer(["a dog", "a dog", "word " * 40, ""])
    ids, mask = found["input_ids"], found["attention_mask"]
    assert ids.shape == mask.shape == (4, 8)
    assert torch.equal(ids[0], ids[1]) and ids[0].tolist()[0] == 101
    assert mask.sum(dim=1).tolist() == [4, 4, 8, 2]
    assert all(row[int(m.sum()) - 1] == 102 for row, m in zip(ids, mask, strict=True))
    words = ids[0, 1:3]
    assert ((words >= 1000) & (words < 30522)).all() and words[0] != words[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_at_full_size_random_weights_score_and_steer_without_a_network(name, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", no_network)
    cls = registry.load("reward", name)
    reward = cls(cls.Config(source=RANDOM[name]), torch.device("cpu"))
    media, prompts = batch(1, side=64)
    media.requires_grad_()
    score = reward.score(media, prompts)
    (slope,) = torch.autograd.grad(score.sum(), media)
    assert score.shape == (1,) and torch.isfinite(score).all()
    assert torch.isfinite(slope).all() and (slope.flatten(1).norm(dim=1) > 0).all()


def no_network(*_: object) -> None:
    raise AssertionError("random weights went to the network")


def test_describe_shows_every_scorer(capsys):
    from rich.console import Console

    from bench.catalogue import show

    for name in (*NAMES, "weighted", "python"):
        show(Console(width=120), name)
    shown = capsys.readouterr().out
    assert "HPS_v2.1_compressed.pt" in shown and "x100" in shown
