"""Presets: methods that are only settings."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from bench.base import registry
from bench.base.errors import BenchError
from bench.base.layers import config_dir
from bench.cli import describe
from bench.experiment import method_files, request
from bench.experiment.request import Options
from bench.experiment.settings import Training
from bench.run import experiment
from tests.support.running import DOTS


@pytest.fixture
def methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of configs/methods that a test may add files to."""
    shutil.copytree(config_dir(), tmp_path / "configs")
    monkeypatch.setattr("bench.base.layers.config_dir", lambda: tmp_path / "configs")
    for cached in (registry.entries, method_files.file_blocks):
        cached.cache_clear()
    yield tmp_path / "configs" / "methods"
    for cached in (registry.entries, method_files.file_blocks):
        cached.cache_clear()


def trained(tmp_path: Path, methods: str, *settings: str, model: str = str(DOTS)) -> dict[str, Training]:
    """The cells of a run by method, planned in this process."""
    options = Options(methods=methods, model=model, settings=settings, out=tmp_path / "results")
    cells = experiment.plan(request.build(options), force=False).cells
    return {c.config.label: c.config.training for c in cells if c.config.training is not None}


def test_preset_is_its_base_with_other_settings() -> None:
    entry = registry.find("method", "rlr-no-zo")
    assert entry.base == "rlr"
    assert entry.load() is registry.load("method", "rlr")
    summary = entry.summary()
    assert summary is not None
    assert summary.startswith('rlr: RLR without its zeroth-order term (paper, Table 5, "w/o ZO")')


def test_misspelt_preset_suggests_the_closest() -> None:
    with pytest.raises(BenchError, match=r"unknown method 'rlr-nozo'\. Did you mean 'rlr-no-zo'\?"):
        registry.find("method", "rlr-nozo")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mine", "base: rlrr\n", "mine.yaml: base: 'rlrr' is no method class. Did you mean 'rlr'? Known: "),
        ("mine", "base: rlr-h3\n", "mine.yaml: base: 'rlr-h3' is a preset itself. Did you mean 'rlr'?"),
        ("mine", "base: [rlr]\n", "mine.yaml: base: expected the name of a method class, found ['rlr']"),
        ("dppo", "default: {}\n", "dppo.yaml: base: is missing, and no method class is called 'dppo'. "),
        ("rlr", "base: ddpo\n", "rlr.yaml: base: 'rlr' is a method class; a preset needs a name of its own"),
        ("mine", "base: rlr\ntinny: {}\n", "mine.yaml: tinny: unknown model. Did you mean 'tiny'?"),
        ("mine", "base: rlr\ndefault: 3\n", "mine.yaml: default: expected a mapping, found 3"),
    ],
)  # fmt: skip
def test_faulty_preset_file_is_one_clear_line(methods: Path, name: str, text: str, message: str) -> None:
    (methods / f"{name}.yaml").write_text(text)
    with pytest.raises(BenchError) as caught:
        method_files.blocks(name, "tiny")
    assert f"configs/methods/{message}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_setting_of_a_preset_is_blamed_on_its_file(methods: Path) -> None:
    (methods / "mine.yaml").write_text("base: rlr\ndefault: {method: {complation: none}}\n")
    with pytest.raises(BenchError) as caught:
        method_files.shipped_config("mine", "tiny")
    expected = "configs/methods/mine.yaml: default.method.complation: unknown key. Did you mean 'completion'?"
    assert str(caught.value) == expected


def test_presets_blocks_lie_over_all_of_its_bases_and_below_what_is_typed(
    methods: Path, tmp_path: Path
) -> None:
    (methods / "mine.yaml").write_text(
        "base: truncated_bp\ndefault: {method: {k: 7}, train: {lr: 0.5}}\ntiny: {train: {steps: 3}}\n"
    )
    base = method_files.shipped_config("truncated_bp", "tiny")
    assert base.model_dump()["k"] == 5  # its block for the model, which the preset's default overrides
    mine = trained(tmp_path, "mine", model="tiny")["mine"]
    assert (mine.method.config["k"], mine.train.lr, mine.train.steps, mine.train.eval_every) == (
        7,
        0.5,
        3,
        14,
    )
    typed = trained(tmp_path, "mine", "mine.k=2", "train.lr=2", "mine.train.lr=4", model="tiny")["mine"]
    assert (typed.method.config["k"], typed.train.lr) == (2, 4)


def test_preset_and_base_run_side_by_side_and_are_addressed_by_their_own_names(
    plugin: None, tmp_path: Path
) -> None:
    run = trained(tmp_path, "rlr,rlr-no-zo", "model.steps=6", "rlr.h=1", "rlr-no-zo.h=3")
    assert [(name, t.method.config["h"], t.method.config["completion"]) for name, t in run.items()] == [
        ("rlr", 1, "zo"),
        ("rlr-no-zo", 3, "none"),
    ]
    with pytest.raises(BenchError, match="'rlr' is not part of this run"):
        trained(tmp_path, "rlr-no-zo", "model.steps=6", "rlr.h=1")


def test_all_means_everything_that_list_shows_under_methods(plugin: None, tmp_path: Path) -> None:
    assert list(trained(tmp_path, "all", "model.steps=12")) == list(registry.entries("method"))


def test_preset_that_does_not_fit_the_chain_is_named(plugin: None, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"preset 'rlr-h4' of rlr: rlr\.h is 4, but only 3 steps lie before"):
        trained(tmp_path, "rlr-h4", "model.steps=4")


def test_describe_of_a_preset_has_its_bases_text_and_both_files() -> None:
    out = io.StringIO()
    describe.show(Console(file=out, width=200), "rlr-no-zo")
    for part in (
        "rlr-no-zo (preset of rlr, methods.rlr:Rlr)",
        "RLR, the recursive likelihood ratio",
        "--set rlr-no-zo.KEY=VALUE",
        "configs/methods/rlr.yaml",
        "configs/methods/rlr-no-zo.yaml",
        "completion: none",
    ):
        assert part in out.getvalue()


def test_a_models_blocks_lie_over_those_of_the_model_it_is_like(methods: Path, tmp_path: Path) -> None:
    models = methods.parent / "models"
    (models / "second.yaml").write_text("like: tiny\n" + (models / "tiny.yaml").read_text())
    (methods / "mine.yaml").write_text(
        "base: rlr\ndefault: {method: {h: 1}}\n"
        "second: {train: {lr: 0.5}}\ntiny: {method: {h: 3}, train: {lr: 0.25, steps: 7}}\n"
    )
    third = tmp_path / "third.yaml"
    third.write_text("like: second\n" + (models / "tiny.yaml").read_text())
    for model in ("second", str(third)):
        mine = trained(tmp_path, "mine", model=model)["mine"]
        assert (mine.method.config["h"], mine.train.lr, mine.train.steps) == (3, 0.5, 7)


@pytest.mark.parametrize(
    ("like", "hint"), [("tinny", "Did you mean 'tiny'?"), ("mine", ""), ("tiny-flow", "")]
)
def test_a_model_that_is_like_none_is_refused(methods: Path, like: str, hint: str) -> None:
    models = methods.parent / "models"
    text = (models / "tiny.yaml").read_text()
    (models / "mine.yaml").write_text(f"like: {like}\n" + text)
    (models / "tiny.yaml").write_text("like: mine\n" + text)
    with pytest.raises(BenchError) as caught:
        method_files.blocks("rlr", "mine")
    assert ".yaml: like: '" in str(caught.value) and "is no other shipped model." in str(caught.value)
    assert str(caught.value).endswith(hint)
