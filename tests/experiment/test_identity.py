"""Which cells are the same: ids follow what changes numbers, and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.data.need import Need
from bench.data.sources import find
from bench.experiment.request import Options, build
from bench.experiment.resolve import resolve_all
from rewards.python_function import PythonConfig


def ids(**options: object) -> list[str]:
    return [cell.id for cell in resolve_all(build(Options(**options)).combinations)]  # type: ignore[arg-type]


def test_ids_of_results_from_before_real_models_are_still_the_same() -> None:
    """Written by the version before DCoT, variants and compiled networks were settings."""
    found = ids(methods="rlr", settings=["train.micro_batch=4"])  # what the model's file said then
    assert found[:2] == ["base-tiny-e57df9ac", "rlr-tiny-clip-s0-5c966a96"]


def test_later_training_settings_are_other_cells_where_they_say_something_else() -> None:
    plain = ids(methods="rlr")
    assert ids(methods="rlr", settings=["train.graphs=staged", "train.reward_chunk=null"]) == plain
    chunked = ids(methods="rlr", settings=["train.reward_chunk=2"])  # like micro_batch: the last digits
    joint = ids(methods="rlr", settings=["train.graphs=joint"])
    assert len({plain[1], chunked[1], joint[1]}) == 3
    assert plain[0] == chunked[0] == joint[0]  # the base model


def test_a_kl_term_is_another_cell_and_none_is_as_before() -> None:
    plain = ids(methods="ddpo,reinforce")
    assert ids(methods="ddpo,reinforce", settings=["train.kl=0", "reinforce.divide=none"]) == plain
    assert not set(ids(methods="ddpo,reinforce", settings=["train.kl=0.01"])[1:]) & set(plain)


def test_dcot_and_where_its_parts_end_are_other_cells(tmp_path: Path) -> None:
    common = {"methods": "ddpo", "prompts": "hand"}
    plain, on = ids(**common), ids(dcot=True, **common)
    early = ids(dcot=True, settings=["dcot.boundaries=[0.2,0.6]"], **common)
    assert len({*plain, *on, *early}) == 6
    copy = tmp_path / "copy.jsonl"
    copy.write_text("")
    assert ids(dcot=True, settings=[f"dcot.file={copy}"], **common) == on  # the same texts from elsewhere


@pytest.mark.parametrize("reward", ["python:mine_for_ids.fn", "python:mine_for_ids.fn:1,clip:2"])
def test_another_code_of_a_function_is_another_cell(
    reward: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "mine_for_ids.py"
    file.write_text("def fn(images, prompts):\n    return images.mean(dim=(1, 2, 3))\n")
    first = ids(methods="ddpo", reward=reward)
    assert ids(methods="ddpo", reward=reward) == first
    file.write_text("def fn(images, prompts):\n    return -images.mean(dim=(1, 2, 3))\n")
    assert ids(methods="ddpo", reward=reward) != first
    sys.modules.pop("mine_for_ids")


def test_a_callable_that_is_no_plain_function_has_a_digest_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "partly_mine.py").write_text(
        "from functools import partial\nfn = partial(lambda n, images, prompts: [n] * len(prompts), 1.0)\n"
    )
    assert len(PythonConfig(function="partly_mine.fn").digest() or "") == 16


def test_terms_of_a_sum_may_lie_anywhere(tmp_path: Path) -> None:
    import shutil

    from bench.data.need import needs_of
    from rewards.clip import ClipConfig

    shipped = find(needs_of(ClipConfig(), "reward clip", "clip")[0])
    assert shipped is not None
    for name in ("a", "b"):
        shutil.copytree(shipped, tmp_path / name)
    sums = [
        ids(methods="ddpo", reward="clip:1,jpeg:0.1", settings=[f"clip.path={tmp_path / name}"])
        for name in ("a", "b")
    ]
    assert sums[0] == sums[1]


def test_random_weights_are_those_of_the_configs(tmp_path: Path) -> None:
    import shutil

    from bench.models.random_weights import architecture

    for name in ("a", "b"):
        shutil.copytree(architecture("sd14"), tmp_path / name)

    def of(name: str) -> list[str]:
        return ids(methods="zo", model=f"path:{tmp_path / name}", weights="random", reward="clip")

    a, b = of("a"), of("b")
    assert [one.rpartition("-")[2] for one in a] == [one.rpartition("-")[2] for one in b]
    config = tmp_path / "b" / "unet" / "config.json"
    config.write_text(config.read_text().replace('"sample_size": 64', '"sample_size": 32'))
    assert of("b") != b


def test_a_file_that_others_asked_for_changes_no_hub_digest(tmp_path: Path) -> None:
    from bench.data.digests import digest

    (tmp_path / "A.pt").write_bytes(b"1")
    need = Need("reward x", "hub:a/b", "x.path", files=("A.pt",))
    before = digest(tmp_path, need.files, need.ignored)
    (tmp_path / "B.pt").write_bytes(b"2")
    assert digest(tmp_path, need.files, need.ignored) == before != digest(tmp_path)


OWN_CODE = {  # file of a package `mine_pkg` → its text; `reward.fn` is the reward
    "reward.py": "from .parts import scale\nimport mine_top\n\n\ndef fn(images, prompts):\n"
    "    from mine_pkg import late\n    import importlib\n    importlib.import_module('mine_named')\n"
    "    return images.mean(dim=(1, 2, 3)) * scale(late.FACTOR)\n",
    "parts/__init__.py": "from mine_pkg.parts.deep import scale\n",
    "parts/deep.py": "def scale(x):\n    return x\n",
    "__init__.py": "VERSION = 1\n",
    "late.py": "FACTOR = 2\n",
    "../mine_top.py": "import no_such_package_but_optional\n",
    "../mine_named.py": "A = 1\n",
}


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of `mine_pkg`."""
    import sys

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "no_such_package_but_optional", sys)
    for name, text in OWN_CODE.items():
        file = tmp_path / "mine_pkg" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    yield tmp_path / "mine_pkg"
    for name in [one for one in sys.modules if one.startswith("mine_")]:
        del sys.modules[name]


@pytest.mark.silent
@pytest.mark.parametrize("name", sorted(set(OWN_CODE) - {"reward.py"}))
def test_code_that_a_function_imports_is_part_of_it_wherever_the_import_stands(
    name: str, own_code: Path
) -> None:
    first = ids(methods="ddpo", reward="python:mine_pkg.reward.fn")
    assert ids(methods="ddpo", reward="python:mine_pkg.reward.fn") == first
    with (own_code / name).open("a") as file:
        file.write("# another\n")
    assert ids(methods="ddpo", reward="python:mine_pkg.reward.fn") != first


@pytest.mark.silent
def test_code_that_is_installed_or_not_imported_is_no_part_of_a_function(own_code: Path) -> None:
    config = PythonConfig(function="mine_pkg.reward.fn")
    first = config.digest()
    (own_code / "other.py").write_text("A = 1\n")
    assert config.digest() == first
    for folder, counts in (("site-packages", False), ("elsewhere", True)):
        place = own_code.parent / folder
        place.mkdir()
        (place / "mine_installed.py").write_text("A = 1\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(place))
            (own_code / "late.py").write_text("import mine_installed, torch, bench.base\nFACTOR = 2\n")
            before = config.digest()
            (place / "mine_installed.py").write_text("A = 2\n")
            assert (config.digest() != before) is counts


@pytest.mark.silent
def test_compiled_code_of_ones_own_is_part_of_a_function(own_code: Path) -> None:
    from importlib.machinery import EXTENSION_SUFFIXES

    compiled = own_code / f"fast{EXTENSION_SUFFIXES[0]}"
    compiled.write_bytes(b"1")
    (own_code / "late.py").write_text("FACTOR = 2\ndef f():\n    from mine_pkg import fast\n")
    before = PythonConfig(function="mine_pkg.reward.fn").digest()
    compiled.write_bytes(b"2")
    assert PythonConfig(function="mine_pkg.reward.fn").digest() != before


def test_a_function_whose_module_imports_nothing_of_ones_own_has_the_digest_it_always_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.data.digests import text_digest

    monkeypatch.syspath_prepend(str(tmp_path))
    text = "import torch\nimport math\n\ndef fn(images, prompts):\n    return [math.pi] * len(prompts)\n"
    (tmp_path / "mine_alone.py").write_text(text)
    assert PythonConfig(function="mine_alone.fn").digest() == text_digest((text,))
    assert PythonConfig(function="math.floor").digest() == text_digest(("math.floor",))
