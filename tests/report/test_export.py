"""What an exported folder says of its cell, on made-up results: their numbers, licences, and refusals."""

import json
import re
import shutil
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bench.base.errors import BenchError
from bench.base.layers import shipped
from bench.experiment.model_files import model_settings
from bench.models.config import ModelConfig
from bench.models.lora_files import packed
from bench.report.export import folder
from bench.report.export.base_model import UNKNOWN, base_model
from bench.report.export.usage import snippet
from bench.run.store import CellDir
from tests.report import fake
from tests.support.fake_hub import GOOD_TOKEN, FakeHub
from tests.support.running import here

LORA = "lora/pytorch_lora_weights.safetensors"


def write_lora(cell: Path) -> None:
    """One layer of a UNet."""
    key = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{key}.lora_A.weight": torch.ones(2, 4), f"{key}.lora_B.weight": torch.ones(4, 2)}
    settings = {"unet.r": 2, "unet.lora_alpha": 4}
    (cell / "lora").mkdir()
    (cell / LORA).write_bytes(packed(tensors, {"lora_adapter_metadata": json.dumps(settings)}))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of two methods, and the base model."""
    root = fake.write(tmp_path_factory.mktemp("results") / "fight", ["full_bp", "zo"], seeds=(0, 1))
    for cell in (root / "cells").glob("*-s?-*"):
        write_lora(cell)
    return root


@pytest.fixture
def fight(written: Path, tmp_path: Path) -> Path:
    """A copy of them, to change."""
    return shutil.copytree(written, tmp_path / "fight")


def cell_of(root: Path, prefix: str = "full_bp-tiny-clip-s0") -> Path:
    (found,) = (root / "cells").glob(f"{prefix}*")
    return found


def exported(cell: Path, place: str | None = None) -> tuple[dict[str, Any], str, folder.Export]:
    """The header and the text of the card, and everything."""
    made = folder.build(CellDir(cell), place)
    _, header, text = made.files["README.md"].decode().split("---\n", 2)
    return yaml.safe_load(header), text, made


def scores(cell: Path) -> pd.Series:
    """The trained reward by prompt at the last evaluation."""
    rows = pd.read_json(cell / "eval.jsonl", lines=True)
    last = rows[(rows["reward"] == "clip") & (rows["step"] == rows["step"].max())]
    return cast(pd.Series, last.groupby("prompt")["score"].mean())


@pytest.mark.slow
def test_the_card_has_the_numbers_of_its_own_run_and_those_of_all_seeds(fight: Path) -> None:
    own, base = scores(cell_of(fight)), scores(cell_of(fight, "base"))
    header, text, made = exported(cell_of(fight))
    gain = own - base
    assert made.lacks == ()
    assert f"{gain.mean():+.4f} ± {gain.sem():.4f}" in text
    assert f" {base.mean():.4f} |" in text and f" {own.mean():.4f} |" in text
    (result,) = header["model-index"][0]["results"]
    measured = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert measured["clip"] == pytest.approx(own.mean(), rel=1e-5)
    assert measured.keys() == {"clip", "colourfulness", "jpeg", "diversity"}
    both = pd.concat([gain, scores(cell_of(fight, "full_bp-tiny-clip-s1")) - base])
    shown = re.search(r"over all 2 training runs of this setting, .*: ([+-][0-9.]+) ± 0\.\d+\.\n", text)
    assert shown is not None and float(shown[1]) == pytest.approx(both.mean(), abs=1e-3)
    assert "Training was on clip alone" in text and "lower than the base model's: jpeg." in text
    assert "not clearly above zero" not in text


@pytest.mark.slow
def test_what_is_not_known_is_said(fight: Path) -> None:
    _, text, _ = exported(cell_of(fight, "zo-tiny-clip-s1"))
    shutil.rmtree(cell_of(fight, "base"))
    alone, lonely, made = exported(cell_of(fight))
    assert "not clearly above zero" not in lonely
    assert "The base model was not evaluated beside it" in lonely and "+0" not in lonely
    assert made.lacks == ("no comparison: the base model's cell is not there",)
    assert alone["model-index"][0]["results"]
    elsewhere = fight.parent / "elsewhere"
    cell_of(fight).rename(elsewhere)  # a cell that somebody sent
    assert exported(elsewhere)[0]["license"] == "other"
    assert "The table is of one training run" in text


@pytest.mark.slow
def test_the_same_cell_gives_the_same_bytes_and_the_files_are_there(fight: Path, tmp_path: Path) -> None:
    cell = cell_of(fight)
    for out in ("a", "b"):
        done = here("export", cell, "--to", tmp_path / out)
        assert done.returncode == 0, done.stderr
    names = {file.relative_to(tmp_path / "a").as_posix() for file in (tmp_path / "a").rglob("*.*")}
    name = "kohya/full_bp-tiny-clip-s0.safetensors"
    assert names == {
        *("README.md", "config.yaml", "pytorch_lora_weights.safetensors", name),
        *(f"images/{n}.png" for n in (0, 1, 2, 3, "before_and_after")),
    }
    for file in names:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert (tmp_path / "a" / "config.yaml").read_bytes() == (cell / "config.yaml").read_bytes()
    assert here("export", cell, "--to", tmp_path / "a").returncode == 0  # nothing would change


@pytest.mark.slow
def test_what_is_in_the_way_stays_without_force(fight: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("mine")
    (out / "notes.txt").write_text("mine, too")
    refused = here("export", cell_of(fight), "--to", out)
    assert refused.returncode == 2
    assert f"--to {out}: holds README.md, which is not what would be written" in refused.stderr
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "notes.txt"]
    assert here("export", cell_of(fight), "--to", out, "--overwrite").returncode == 0
    assert (out / "README.md").read_text().startswith("---\n")
    assert (out / "notes.txt").read_text() == "mine, too"
    assert "a file is there" in here("export", cell_of(fight), "--to", out / "notes.txt").stderr
    assert "--public: only with --push" in here("export", cell_of(fight), "--to", out, "--public").stderr


def change(cell: Path, what: str) -> None:
    """Make it one that cannot be exported."""
    config = yaml.safe_load((cell / "config.yaml").read_text())
    if what == "running":
        (cell / "status.json").write_text('{"state": "timeout", "step": 20, "message": "out of time"}')
    elif what == "nothing trained":
        config["training"] |= {"method": {"name": "doodl", "config": {}}, "train": {"steps": 0}}
        (cell / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    elif what == "no adapter":
        shutil.rmtree(cell / "lora")
    elif what == "cut short":
        (cell / LORA).write_bytes((cell / LORA).read_bytes()[:-8])
    elif what == "no config":
        (cell / "config.yaml").unlink()


@pytest.mark.parametrize(
    ("prefix", "what", "message"),
    [
        ("base", "", "the cell of the untuned model, which has no LoRA"),
        ("full_bp-tiny-clip-s0", "running", "timeout, at step 20: out of time\n  Only finished cells"),
        ("full_bp-tiny-clip-s0", "nothing trained", "method 'doodl' trains nothing, so there is no LoRA"),
        ("full_bp-tiny-clip-s0", "no adapter", "is finished and has no lora/"),
        ("full_bp-tiny-clip-s0", "cut short", "no whole safetensors file"),
        ("full_bp-tiny-clip-s0", "no config", "no cell: name the directory of one"),
    ],
)
def test_what_has_no_lora_is_one_message(fight: Path, prefix: str, what: str, message: str) -> None:
    cell = cell_of(fight, prefix)
    change(cell, what)
    with pytest.raises(BenchError, match=message):
        folder.build(CellDir(cell), None)


@pytest.mark.slow
def test_a_pushed_ones_card_loads_it_from_the_hub(fight: Path) -> None:
    header, text, _ = exported(cell_of(fight), "us/lora")
    assert header["model-index"][0]["name"] == "lora" and text.startswith("\n# lora\n")
    assert "pipe.load_lora_weights('us/lora')" in text


@pytest.mark.slow
def test_clips_stand_beside_the_base_models_as_gif(fight: Path) -> None:
    clip, about = Image.new("RGB", (8, 4)), PngInfo()
    about.add_text("frames", "2")
    for cell in (cell_of(fight), cell_of(fight, "base")):
        config = yaml.safe_load((cell / "config.yaml").read_text())
        config["model"]["config"] |= {"family": "video", "frames": 2}
        (cell / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        for file in cell.glob("samples/*/*.png"):
            clip.save(file, pnginfo=about)
            file.with_suffix(".gif").write_bytes(cell.name.encode())
    header, text, made = exported(cell_of(fight))
    assert made.files["images/base_0.gif"] == cell_of(fight, "base").name.encode()
    assert f"| {fake.PROMPTS[0]} | ![before](<images/base_0.gif>) | ![after](<images/0.gif>) |\n" in text
    assert header["pipeline_tag"] == "text-to-video"
    assert header["widget"][0] == {"text": fake.PROMPTS[0], "output": {"url": "images/0.gif"}}
    assert made.lacks == (
        "no file in kohya's key style: kohya's programs have no names for models of family video",
    )


@pytest.mark.slow
def test_pushed_it_is_what_the_folder_holds(
    fight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with FakeHub() as hub:
        hub.use(monkeypatch, tmp_path / "home")
        refused = here("export", cell_of(fight), "--to", out, "--push", "us/lora")
        assert refused.returncode == 2 and "there is no token of the hub" in refused.stderr
        assert not out.exists()
        monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
        done = here("export", cell_of(fight), "--to", out, "--push", "us/lora")
        assert done.returncode == 0 and done.stdout.endswith(f"\n{hub.url}/us/lora\n"), done.stderr
        made = hub.repositories["us/lora"]
    assert made.private
    assert made.files == {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.*")}
    assert b"pipe.load_lora_weights('us/lora')" in made.files["README.md"]


def test_base_models_and_licences_are_those_of_the_source() -> None:
    """Of every model that ships but VideoCrafter 2, whose converted UNet names none that is known here."""
    found = {name: base_model(model_settings(name, [])) for name in shipped("models")}
    assert {name for name, base in found.items() if base.licence == UNKNOWN} == {"videocrafter2"}
    assert {name for name, base in found.items() if base.embedded} == {"tiny", "tiny-flow", "tiny-video"}
    assert found["sd15"].repositories == ("stable-diffusion-v1-5/stable-diffusion-v1-5",)
    assert found["sd15"].licence.id == "creativeml-openrail-m"
    assert found["flux1"].licence.link is not None and found["flux1"].licence.id == "other"
    assert found["modelscope"].repositories[0] == "damo-vilab/text-to-video-ms-1.7b"
    somebodys = base_model(ModelConfig(source="path:/home/me/model"))
    assert somebodys.repositories == () and somebodys.licence == UNKNOWN


def test_lines_for_diffusers_load_what_the_settings_name(fight: Path) -> None:
    """Python that compiles, for every model that ships."""
    config = CellDir(cell_of(fight)).config()
    found = dict[str, str]()
    for name in shipped("models"):
        chosen = config.model.model_copy(update={"config": model_settings(name, [])})
        found[name] = str(snippet(config.model_copy(update={"model": chosen}), "us/lora", "it's a cat"))
        compile(found[name], name, "exec")
    assert (
        "'stable-diffusion-v1-5/stable-diffusion-v1-5', torch_dtype=torch.float16, revision=" in found["sd15"]
    )
    assert (
        "num_inference_steps=6, guidance_scale=3.5, height=512, width=512, max_sequence_length=128"
        in found["flux1"]
    )
    network = "'damo-vilab/text-to-video-ms-1.7b', subfolder='unet', torch_dtype=torch.float16"
    assert f"unet = Unet3D.from_pretrained({network})\n" in found["modelscope"]
    private = config.model.model_copy(update={"config": ModelConfig(source="path:/home/me/model")})
    assert "/home/me" not in str(snippet(config.model_copy(update={"model": private}), "us/lora", "a"))
