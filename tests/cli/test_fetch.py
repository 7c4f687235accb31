import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from bench.base.errors import BenchError
from bench.cli import fetch
from bench.data import prompts
from bench.data.cache import file_path
from bench.data.need import Need
from bench.data.prompts import public
from bench.data.sources import find, locate, look
from bench.data.url import fetch_url
from bench.experiment import ingredients
from bench.experiment.cell_digests import MISSING
from bench.experiment.request import Options, build
from bench.experiment.resolve import resolve_all
from bench.run import preflight
from bench.run.experiment import plan, show
from tests.support.fake_hub import FakeHub
from tests.support.running import ROOT, command

FILES = {"model_index.json": b"{}", "unet/model.safetensors": b"w" * 5000}
FEW = ("--reward", "jpeg", "--prompts", "emoji")


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with FakeHub() as server:
        server.add("org/one", FILES)
        yield server


def run(fake: FakeHub, home: Path, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | fake.environment(home, **({"COLUMNS": "80"} | more))
    return subprocess.run(
        command(*arguments), env=environment, capture_output=True, text=True, cwd=ROOT, check=False
    )


@pytest.mark.slow
def test_a_tree_made_by_to_is_all_that_a_machine_without_network_needs(fake: FakeHub, tmp_path: Path) -> None:
    tree = tmp_path / "my tree"
    done = run(fake, tmp_path / "home", "fetch", "--model", "hub:org/one", *FEW, "--to", tree)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "home").exists()
    exports = [line.strip() for line in done.stdout.splitlines() if line.strip().startswith("export ")]
    assert [line.partition("=")[0] for line in exports] == [
        "export HF_HOME",
        "export BENCH_CACHE",
        "export HF_HUB_OFFLINE",
    ]
    code = "from bench.experiment.ingredients import *; print(look(model_ingredient('hub:org/one').needs[0]).path)"  # noqa: E501
    shell = "; ".join([*exports, f'"$PYTHON" -c "{code}"'])
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "BENCH_"))}
    found = subprocess.run(
        ["bash", "-c", shell],
        env=plain | {"PYTHON": command()[0], "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert Path(found.stdout.strip()).is_relative_to(tree)


@pytest.mark.slow
def test_one_failure_stops_nothing_else_and_the_exit_code_says_so(fake: FakeHub, tmp_path: Path) -> None:
    done = run(fake, tmp_path, "fetch", "--model", "hub:org/gone,hub:org/one", *FEW)
    assert done.returncode == 1
    assert "answered 404" in done.stdout
    assert "5 kB here" in done.stdout
    again = run(fake, tmp_path, "fetch", "--model", "hub:org/one", *FEW)
    assert again.returncode == 0
    assert len(fake.downloads("model.safetensors")) == 1  # what is there is not fetched again
    assert "Traceback" not in done.stderr + again.stderr


@pytest.mark.slow
def test_a_dry_run_asks_nobody(fake: FakeHub, tmp_path: Path) -> None:
    done = run(fake, tmp_path, "fetch", "--model", "hub:org/one", *FEW, "--dry-run", COLUMNS="60")
    assert done.returncode == 0
    assert "not here" in done.stdout
    assert fake.requests == []
    assert max(map(len, done.stdout.splitlines())) <= 60


@pytest.mark.slow
def test_nothing_named_is_an_error_that_shows_how(fake: FakeHub, tmp_path: Path) -> None:
    done = run(fake, tmp_path, "fetch")
    assert done.returncode == 2
    assert "--model sd14" in done.stderr


def test_what_does_not_fit_the_disk_is_not_begun(
    fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.use(monkeypatch, tmp_path)
    monkeypatch.setattr("bench.data.hub.free_gigabytes", lambda place: 1e-6)
    console = Console(record=True, width=80)
    assert fetch.run(console, [ingredients.model_ingredient("hub:org/one")], None, False) == 1
    assert "5 kB to download, and 0.0 GB free" in console.export_text()
    assert fake.downloads("model.safetensors") == []


def test_a_tree_holds_the_cache_of_files_from_urls_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.delitem(sys.modules, "huggingface_hub.constants", raising=False)
    fetch.use_tree(tmp_path)
    need = Need("reward x", "url:https://example.org/x.pth", "x.path")
    file = file_path(need)
    assert file.is_relative_to(tmp_path / "bench")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert locate(need) == file.parent


def test_a_model_brings_its_rewards_and_prompts_unless_others_are_named() -> None:
    def labels(*names: str | None) -> list[str]:
        return [piece.label for piece in ingredients.named(*names)]  # type: ignore[arg-type]

    own = ["model tiny", "reward clip", "reward colourfulness", "reward jpeg", "prompts emoji"]
    assert labels("tiny", None, None) == own
    assert labels("tiny", "jpeg", "animals") == [*own[:-1], "prompts animals"]
    alone = ingredients.named("tiny", "jpeg", "animals", ["eval.rewards=[]"])
    assert [piece.label for piece in alone] == ["model tiny", "reward jpeg", "prompts animals"]
    assert labels(None, "clip:1,jpeg:0.5", None) == ["reward clip", "reward jpeg"]
    assert set(own[1:4]) <= set(labels(None, "all", None))


def test_fetch_brings_all_that_the_run_of_the_same_names_waits_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    experiment = build(Options(methods="rlr,ddpo", model="sd14", reward="hpsv2"))
    missing = {
        what.partition(" hpdv2")[0]
        for cell in resolve_all(experiment.combinations, fetch=False)
        for what, digest in cell.config.digests.items()
        if digest.startswith(MISSING)
    }
    fetched = {need.name for piece in ingredients.named("sd14", "hpsv2", None) for need in piece.needs}
    assert missing == {name.partition(" hpdv2")[0] for name in fetched}
    assert {"model", "prompts", "reward hpsv2", "reward aes clip", "reward imagereward"} <= missing


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ((), "--reward aes,hpsv2,imagereward,pickscore --prompts hpdv2\n"),
        (("eval.rewards=[]",), "--reward hpsv2 --prompts hpdv2 --set 'eval.rewards=[]'\n"),
        (("eval.rewards=[jpeg]",), "--reward hpsv2 --prompts hpdv2 --set 'eval.rewards=[jpeg]'\n"),
    ],
)
def test_the_command_that_a_run_names_brings_no_rewards_that_it_does_not_score_by(
    settings: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(preflight, "check", lambda *_, **__: None)  # what is missing is known without it
    options = Options(methods="ddpo", model="sd14", reward="hpsv2", settings=settings, out=tmp_path / "r")
    console = Console(width=80)
    with console.capture() as captured:
        show(console, plan(build(options), force=False, fetch=False))
    assert "python -m bench fetch --model sd14 " + told in captured.get()


def test_to_a_file_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BenchError, match="no directory"):
        fetch.use_tree(tmp_path / "file")


def test_settings_move_a_need_and_must_mean_something() -> None:
    (piece,) = ingredients.named(None, "clip", None, ["clip.source=hub:org/other"])
    assert piece.needs[0].source == "hub:org/other"
    with pytest.raises(BenchError, match="'jpeg' is not among what is named"):
        ingredients.named(None, "clip", None, ["jpeg.quality=1"])


def test_a_named_place_that_is_not_there_is_told_and_no_error(tmp_path: Path) -> None:
    found = look(Need("model", None, "model.path", tmp_path / "none"))
    assert found.path is None
    assert "not a directory" in (found.problem or "")


def test_a_file_that_is_linked_twice_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"x" * 1000)
    (tmp_path / "b.bin").symlink_to(tmp_path / "a.bin")
    assert look(Need("model", None, "model.path", tmp_path)).size == 1000


def test_a_page_that_is_no_prompt_set_is_refused_and_does_not_stay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What a login page or an error page with status 200 would leave behind."""
    page = b"<html>please log in</html>"

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None: ...

    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        need = Need("prompts drawbench", f"url:http://127.0.0.1:{server.server_port}/table.csv", "")
        found = replace(public.SETS["drawbench"], files=(need,))
        monkeypatch.setitem(public.SETS, "drawbench", found)
        text = io.StringIO()
        code = fetch.run(
            Console(file=text, width=200), ingredients.named(None, None, "drawbench", ()), None, False
        )
        assert code == 1
        assert "no column" in text.getvalue()
        assert find(need) is None
        fetch_url(need)  # as a run does
        with pytest.raises(BenchError, match="no column") as error:
            prompts.load("drawbench")
        assert str(error.value).endswith("Fetch it anew:  python -m bench fetch --prompts drawbench")
        page = b"Prompts\na cat\na dog\n"
        console = Console(file=text, width=200)
        assert fetch.run(console, ingredients.named(None, None, "drawbench", ()), None, False) == 0
        server.shutdown()
    assert {*prompts.load("drawbench").train, *prompts.load("drawbench").eval} == {"a cat", "a dog"}
