"""`python -m bench gradients` as a program: what it writes, says and refuses."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from bench.experiment.request import Options, build
from bench.measure.gradients import plan
from bench.measure.gradients.profiles import profile_tables, read_profiles, rows
from bench.measure.gradients.store import FOLDER, probes
from bench.report import gradients as section
from bench.run import experiment, launch
from bench.run.cell import run_cell
from bench.run.process import Exit
from bench.run.store import CellDir
from tests.measure.gradients.running import (
    arguments,
    called,
    drawn,
    gradients,
    in_this_process,
    measured,
    planned,
    probe,
    sums,
)
from tests.support.running import DOTS, ROOT, bench, cell, environment, train_dots

pytestmark = pytest.mark.slow

DOCS = (ROOT / "docs" / "gradients.md").read_text()
KEYS = {"method", "model", "reward_name", "at", "seed"}


@pytest.fixture
def here(plugin: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profiles are measured in this process, and no figures are drawn."""
    monkeypatch.setattr(launch, "run", in_this_process)
    monkeypatch.setattr(section, "gradient_figures", lambda *frames: [])


def documented() -> Iterator[tuple[str, set[str]]]:
    """Every CSV file that docs/gradients.md has a table of, and its columns."""
    for part in re.split(r"^### ", DOCS.partition("## Files of a profile")[0], flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        for file in re.findall(r"[a-z_]+\.csv", heading):
            names, last = set(KEYS), ""
            for line in re.findall(r"^\| (`.*)$", body, flags=re.MULTILINE):
                if "(steps only)" in line and "steps" not in file:
                    continue
                for name in re.findall(r"`(\w+)`", line.partition(" |")[0]):
                    last = last.rpartition("_")[0] + name if name.startswith("_") else name
                    names.add(last)
            yield file, names


def test_run_ends_with_the_documented_tables_the_figures_and_the_page(tmp_path: Path) -> None:
    more = ("--methods", "truncated_bp,rlr-h1", "--set", "model.steps=3", "--draws", 12, "--jobs", 2)
    done = bench(*arguments(tmp_path / "out", *more))
    assert done.returncode == 0, done.stdout + done.stderr
    files = dict(documented())
    assert len(files) >= 4
    assert set(files) == {path.name for path in (tmp_path / "out").glob("*.csv")}
    for file, columns in files.items():
        assert set(pd.read_csv(tmp_path / "out" / file).columns) == columns, file
    table = pd.read_csv(tmp_path / "out" / "gradients.csv").set_index("method")
    assert set(table.index) == {"full_bp", "truncated_bp", "rlr-h1"}
    assert set(table["draws"]) == {12} and set(table["state"]) == {"done"}
    assert table.loc["full_bp", "verdict"] == "unbiased" and table.loc["full_bp", "reference"]
    assert min(table["peak_memory_mb"] - table["idle_memory_mb"]) > 0 and min(table["seconds"]) > 0
    report = tmp_path / "out" / "report"
    assert {p.stem for p in report.glob("*.svg")} == {f"gradients_{n}" for n in ("plane", "steps", "cosine")}
    assert "Gradient profile" in (report / "report.html").read_text()
    assert "full_bp: done after 12 draws" in done.stdout and "[3/3]" in done.stdout


def test_methods_and_samplers_of_equal_settings_are_measured_once_and_named_together(
    tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--methods", "rlr-h0,rlr-no-ho,full_bp", "--draws", "5")
    assert called(monkeypatch, *arguments(tmp_path, *words)) == 0
    assert len(list((tmp_path / FOLDER).iterdir())) == 2
    table = pd.read_csv(tmp_path / "gradients.csv")
    assert set(table["method"]) == {"full_bp", "rlr-h0 = rlr-no-ho"}
    assert "2 profiles, " in capsys.readouterr().out


def test_reference_runs_without_noise_whatever_the_asked_full_bp_does(
    tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--methods", "full_bp", "--set", "full_bp.eta=1", "--draws", "5")
    assert called(monkeypatch, *arguments(tmp_path, *words)) == 0
    table = pd.read_csv(tmp_path / "gradients.csv").set_index("method")
    assert set(table.index) == {"full_bp (eta=0.0)", "full_bp (eta=1.0)"}
    assert table["reference"].to_dict() == {"full_bp (eta=0.0)": True, "full_bp (eta=1.0)": False}


def test_second_identical_command_draws_nothing_and_more_draws_are_added(
    tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for draws, said in ((4, "2 profiles"), (4, "0 profiles, 1 at a time, 2 done before"), (7, "2 profiles")):
        assert called(monkeypatch, *arguments(tmp_path, "--methods", "zo", "--draws", str(draws))) == 0
        assert said in capsys.readouterr().out
        assert [r.moments.draws for r in rows(tmp_path)] == [draws, draws]
    before = sums(probe(tmp_path, "zo"))
    forced = ("--methods", "zo", "--draws", "7", "--force")
    assert called(monkeypatch, *arguments(tmp_path, *forced)) == 0
    assert "2 profiles, " in capsys.readouterr().out
    assert sums(probe(tmp_path, "zo")) == before


def test_method_that_fails_is_told_with_exit_code_1_and_the_others_go_on(
    tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--methods", "zo,truncated_bp", "--draws", "5")
    nan = ("--set", "zo.scale=1000", "--set", "brightness.glare=0.9999")
    assert called(monkeypatch, *arguments(tmp_path, *words, *nan)) == 1
    told = capsys.readouterr().out
    assert "zo: failed after 0 draws: batch 0: the gradient or a reward is not finite" in told
    assert "see " in told and "Traceback" not in told
    assert (probe(tmp_path, "zo").path / "traceback.txt").exists()
    assert set(pd.read_csv(tmp_path / "gradients.csv")["method"]) == {"full_bp", "truncated_bp"}


def test_profile_that_another_process_writes_is_left_alone(
    tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn(tmp_path, methods="zo", draws=4)
    with probe(tmp_path, "zo").locked():
        assert called(monkeypatch, *arguments(tmp_path, "--methods", "zo", "--draws", "6")) == 1
    assert "is in use by process" in capsys.readouterr().out
    assert probe(tmp_path, "full_bp").status().step == 6


def test_profiles_at_a_trained_cell_have_a_table_of_their_own(
    tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_dots(tmp_path, "train.lr=0.3", steps=2)
    trained = cell(tmp_path, "push")
    words = ("--methods", "truncated_bp", "--draws", "5", "--at", "init", "--at", str(trained.path))
    assert called(monkeypatch, *arguments(tmp_path, *words)) == 0
    assert [[row.at for row in group] for group in profile_tables(read_profiles(probes(tmp_path))[0])] == [
        ["init"] * 2,
        [trained.id] * 2,
    ]
    assert set(pd.read_csv(tmp_path / "gradients.csv")["at"]) == {"init", trained.id}
    fresh, moved = (probe(tmp_path, f"full_bp-dots-brightness-{at}") for at in ("init", "trained"))
    assert sums(fresh) != sums(moved)
    cell_ids, lora_ids = (
        [directory.id for _, directory in planned(tmp_path, places=[str(place)]).probes]
        for place in (trained.path, trained.path / "lora")
    )
    assert cell_ids == lora_ids and moved.id in cell_ids


def test_methods_with_a_batch_of_their_own_are_measured_at_the_models(tmp_path: Path, here: None) -> None:
    probes = [probe for probe, _ in planned(tmp_path, methods="full_bp,grpo,rlr-ho").probes]
    assert {probe.base for probe in probes} == {"full_bp", "grpo", "rlr"}
    assert {(probe.prompts_per_step, probe.samples_per_prompt) for probe in probes} == {(2, 2)}
    typed = [probe for probe, _ in planned(tmp_path, "train.samples_per_prompt=3", methods="grpo").probes]
    assert {(probe.prompts_per_step, probe.samples_per_prompt) for probe in typed} == {(2, 3)}


def test_image_model_is_measured_at_the_lora_of_a_trained_cell(tmp_path: Path) -> None:
    from tests.support.random_init import build_random_pipeline

    model = f"path:{build_random_pipeline(tmp_path / 'sd')}"
    quick = ["model.steps=2", "train.steps=1", "train.lr=0.1", "eval.prompts=1", "eval.images_per_prompt=1"]
    options = Options(
        methods="full_bp", model=model, reward="colourfulness", seeds="0", settings=quick, out=tmp_path
    )
    todo, _ = launch.prepare(experiment.plan(build(options), force=False).todo, force=False)
    trained = CellDir(todo[1].directory.path)
    assert run_cell(trained, None) is Exit.DONE
    places = ["init", str(trained.path)]
    assert measured(plan.plan(build(options), places, plan.Limits(None, 2, None), None), 2) == [Exit.DONE] * 2
    fresh, moved = (row.moments for row in rows(tmp_path))
    assert fresh.dim == moved.dim and fresh.reward != moved.reward


BAD = {
    "unknown method": (["--methods", "rlrr"], "unknown method 'rlrr'. Did you mean 'rlr'? Known: "),
    "method twice": (["--methods", "zo,zo"], "a method is named twice"),
    "budget in words": (["--budget", "soon"], "--budget soon: expected a time such as 90s, 5m or 2h"),
    "no time": (["--budget", "0s"], "--budget 0s: expected a time such as"),
    "no gradient": (["--reward", "jpeg"], "reward 'jpeg' has no gradient. A profile compares every method"),
    "unknown reward": (["--reward", "brigthness"], "unknown reward 'brigthness'. Did you mean 'brightness'?"),
    "absent method": (["--set", "rlr.h=1"], "--set rlr.h=1: 'rlr' is not part of this run"),
    "batch of its own": (["--set", "zo.train.prompts_per_step=3"], "zo: its batch (3 × 2, micro_batch "),
    "unknown key": (["--set", "zo.scal=1"], "zo.scal: unknown key. Did you mean 'scale'?"),
    "missing place": (["--at", "/no/such"], "--at /no/such: neither a cell with a trained LoRA nor"),
    "no LoRA there": (["--at", str(DOTS.parent)], f"--at {DOTS.parent}: neither a cell with a trained LoRA"),
    "missing model": (["--model", "path:/no/such"], "no weights at /no/such"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_every_mistake_is_one_message_with_exit_code_2_before_anything_is_written(
    case: str,
    tmp_path: Path,
    here: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words, expected = BAD[case]
    methods = () if "--methods" in words else ("--methods", "zo")
    assert called(monkeypatch, *arguments(tmp_path / "out", *methods, *words)) == 2
    told = capsys.readouterr()
    said = [line for line in told.err.splitlines() if not line.startswith("… ")]
    assert said[0].startswith("error: ") and expected in told.err
    assert "Traceback" not in told.err and told.out == ""
    assert not (tmp_path / "out").exists()


def test_results_directory_that_cannot_be_written_is_told_with_exit_code_2(
    tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert (
        called(monkeypatch, *arguments(tmp_path / "file" / "below", "--methods", "zo", "--draws", "2")) == 2
    )
    assert f"{tmp_path}/file is no writable directory" in capsys.readouterr().err


def test_help_fits_80_columns_and_knows_every_documented_option() -> None:
    done = subprocess.run(
        [*gradients(Path("x"))[:3], "gradients", "--help"],
        env=environment() | {"COLUMNS": "80"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "…" not in done.stdout
    table = DOCS.partition("| option | meaning |")[2].partition("\n\n")[0]
    options = set(re.findall(r"`(--[a-z-]+)`", "\n".join(re.findall(r"^\| (`[^|]*)", table, re.MULTILINE))))
    shown = set(re.findall(r"^│ (--[a-z-]+)", done.stdout, re.MULTILINE)) - {"--budget"}  # a second spelling
    assert shown == options | {"--help", "--quiet", "--verbose"}
    for default in (
        "(tiny)",
        "(init)",
        "(the model's)",
        "(one per GPU, or per CPU core)",
        "results/gradients",
    ):
        assert default in " ".join(done.stdout.replace("│", " ").split())
    assert str(DOTS) not in done.stdout
