"""Decompositions by language models that run here: a tiny causal LM."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from bench.base.errors import BenchError
from bench.data.prompts import llm
from bench.data.prompts.answers import Stages
from bench.data.prompts.dcot import DcotConfig, stages

GOOD = "**Coarse-level:** an animal\n**Mid-level:** ears\n**Fine-level:** fur"
PARTS = Stages("an animal", "ears", "fur")


@pytest.fixture(autouse=True)
def _no_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal LM with random weights, and a tokenizer of bytes with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    vocabulary = {c: i for i, c in enumerate(["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    directory = tmp_path_factory.mktemp("lm")
    fast.save_pretrained(directory)
    size = len(vocabulary)
    config = GPT2Config(
        vocab_size=size, n_positions=1024, n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(directory)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("templated", [True, False])
def test_a_model_that_runs_here_answers_and_its_nonsense_is_an_error(
    tiny_lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, templated: bool
):
    import torch

    directory = tiny_lm
    if not templated:
        directory = tmp_path / "plain"
        directory.mkdir()
        for file in tiny_lm.iterdir():
            if file.name != "chat_template.jinja":
                (directory / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(llm, "NEW_TOKENS", 12)
    before = torch.get_rng_state()
    model = llm.Local(directory)
    assert bool(model._tokenizer.chat_template) == templated
    said = model.answer("Hello", again=False)
    assert said and said == model.answer("Hello", again=False)
    drawn = model.answer("Hello", again=True)
    assert drawn == model.answer("Hello", again=True) != said
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(BenchError, match="did not answer with a Coarse-level"):
        stages(["a cat"], DcotConfig(llm=str(directory)))


@pytest.mark.slow
def test_what_a_model_that_runs_here_answers_is_the_decomposition(tiny_lm: Path, tmp_path: Path):
    """A model that says one token, whatever it is asked, and that token is an answer."""
    import torch
    from transformers import AutoTokenizer, GPT2LMHeadModel

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_lm)
    tokenizer.add_tokens([f"\n{GOOD}\n\n"])
    model = GPT2LMHeadModel.from_pretrained(tiny_lm)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        model.transformer.wte.weight.zero_()[-1] = 1.0
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
    for part in (tokenizer, model):
        part.save_pretrained(tmp_path / "lm")
    assert stages(["a cat"], DcotConfig(llm=str(tmp_path / "lm"))) == {"a cat": PARTS}
    (tmp_path / "lm" / "model.safetensors").write_bytes(b"cut short")
    assert stages(["a cat"], DcotConfig(llm=str(tmp_path / "lm"))) == {"a cat": PARTS}  # kept
    with pytest.raises(BenchError, match="lm: not a causal LM with its tokenizer"):
        stages(["a dog"], DcotConfig(llm=str(tmp_path / "lm")))


def test_what_to_type_about_an_absent_model_is_what_its_setting_takes(monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BenchError, match=r"--set dcot\.llm=DIRECTORY"):
        stages(["a cat"], DcotConfig(llm="org/name"))


def test_a_directory_without_a_model_is_named(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchError, match="empty: not a causal LM"):
        stages(["a cat"], DcotConfig(llm=str(tmp_path / "empty")))
    with pytest.raises(BenchError, match=r"no weights at .*gone.*Set dcot\.llm"):
        stages(["a cat"], DcotConfig(llm=str(tmp_path / "gone")))


def test_a_model_of_the_hub_is_a_need_and_a_server_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (need,) = DcotConfig(llm="org/name").needs("dcot", "dcot")
    assert (need.source, need.path, need.setting) == ("hub:org/name", None, "dcot.llm")
    (need,) = DcotConfig(llm=str(tmp_path)).needs("dcot", "dcot")
    assert need.path == tmp_path
    assert DcotConfig().needs("dcot", "dcot") == ()
    assert DcotConfig(llm="m", endpoint="http://127.0.0.1:1/v1").needs("dcot", "dcot") == ()


@pytest.mark.silent
@pytest.mark.parametrize("damage", ["lacks", "prefix", "shape"])
def test_a_language_model_without_some_of_its_tensors_names_the_first(
    tiny_lm: Path, tmp_path: Path, damage: str
) -> None:
    """transformers would fill in random numbers and go on."""
    directory = shutil.copytree(tiny_lm, tmp_path / "lm")
    state = load_file(directory / "model.safetensors")
    first = min(state)
    if damage == "prefix":
        state = {f"module.{key}": value for key, value in state.items()}
    elif damage == "shape":
        state[first] = state[first][:1].clone()
    else:
        state.pop(first)
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BenchError, match=f"dcot: {directory}.*{first}"):
        llm.Local(directory)
