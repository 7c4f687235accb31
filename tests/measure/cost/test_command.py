"""`python -m bench profile`: what it writes, shows and refuses; what it says of Stable Diffusion 1.4."""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from bench.base.errors import BenchError
from bench.cli.main import app
from bench.measure.cost.replay import Replay
from bench.measure.cost.simulate import Simulator
from tests.measure.cost.cells import planned
from tests.support.pipelines import pipeline_dir

GIB = 2**30
COLUMNS = {
    "model", "method", "mode", "graphs", "T", "h", "batch", "dtype", "checkpointing", "offload", "resolution",
    "frames", "peak_gb", "weights_gb", "lora_gb", "gradients_gb", "optimizer_gb", "activations_gb",
    "activations_network_gb", "activations_vae_gb", "activations_reward_gb", "latents_gb", "temporaries_gb",
    "system_ram_gb", "forward_evals", "backward_evals", "flops", "seconds",
}  # fmt: skip
SMALL = ("--model", f"path:{pipeline_dir()}", "--reward", "colourfulness", "--set", "train.batch_size=4")
TOGETHER = "rlr.one_start=true"  # all samples take the same kinds of steps: fewer kinds of calls to rehearse
PLAIN = ("model.gradient_checkpointing=false", "train.reward_chunk=1")


def profile(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["profile", *arguments], env={"COLUMNS": "80"}, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


@pytest.mark.slow
def test_profile_writes_both_files_adds_to_them_and_shows_80_columns(tmp_path: Path) -> None:
    out = (*SMALL, "--set", "model.steps=4", "--out", str(tmp_path))
    shown = profile("--methods", "rlr,zo", "--simulate", *out)
    shown += profile("--methods", "zo", "--measure", *out)
    profile("--methods", "zo", "--simulate", *out)
    wide = [
        line for line in shown.splitlines() if len(line) > 80 and not line.startswith(("wrote", "[trans"))
    ]
    assert not wide and "batch 4, " in shown
    table, line = pd.read_csv(tmp_path / "profile.csv"), pd.read_csv(tmp_path / "timeline.csv")
    assert set(table.columns) >= COLUMNS
    assert sorted(zip(table["method"], table["mode"], strict=True)) == [
        ("rlr", "simulated"), ("zo", "measured"), ("zo", "simulated"),
    ]  # fmt: skip
    assert table[[f"{part}_gb" for part in PARTS]].sum(axis=1).to_numpy() == pytest.approx(
        table["peak_gb"].to_numpy()
    )
    assert table["seconds"].notna().tolist() == (table["mode"] == "measured").tolist()  # no calibration there
    for cell, mode in table[["cell", "mode"]].itertuples(index=False, name=None):
        points = line[(line["cell"] == cell) & (line["mode"] == mode)]
        alive = [c for c in points.columns if c.endswith("_gb") and c != "system_ram_gb"]
        row = table[(table["cell"] == cell) & (table["mode"] == mode)]
        assert points[alive].sum(axis=1).max() == pytest.approx(row["peak_gb"].item())
        assert len(points) < 1000
        assert {"rollout", "reward"} <= set(points["stage"])


PARTS = (
    "weights",
    "lora",
    "gradients",
    "optimizer",
    "latents",
    "perturbations",
    "temporaries",
    "activations",
)


def test_unknown_graphs_are_refused() -> None:
    with pytest.raises(BenchError, match="staged or joint"):
        planned("tiny", "zo", graphs="both")


@pytest.mark.slow
def test_methods_that_cannot_be_profiled_are_told_and_do_not_stop_the_others(tmp_path: Path) -> None:
    options = ["--methods", "zo,rlr-resampled", "--graphs", "joint", *SMALL, "--set", "model.steps=4"]
    options += ["--set", "rlr-resampled.start=norms", "--simulate", "--out", str(tmp_path)]
    found = CliRunner().invoke(app, ["profile", *options])
    assert found.exit_code == 1
    assert "graphs=staged" in found.output
    assert pd.read_csv(tmp_path / "profile.csv")["method"].tolist() == ["zo"]


@pytest.mark.slow
def test_batches_that_differ_have_a_column(tmp_path: Path) -> None:
    out = ("--set", "model.steps=2", "--set", "zo.train.batch_size=2", "--out", str(tmp_path))
    shown = profile("--methods", "rlr-h0,zo", "--simulate", *SMALL, *out)
    header = next(line for line in shown.splitlines() if "peak GB" in line)
    assert "batch" in header.split() and "batch 4" not in shown
    assert sorted(pd.read_csv(tmp_path / "profile.csv")["batch"]) == [2, 4]


@pytest.fixture(scope="module")
def simulate() -> Simulator:
    return Simulator()


@pytest.mark.slow
def test_five_methods_run_a_models_networks_once_for_each_kind_of_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called, ran = Counter[str](), Counter[str]()
    call, rehearse = Replay.__call__, Replay._rehearse

    def calling(self: Replay, *args: Any, **kwargs: Any) -> Any:
        called[self.part] += 1
        return call(self, *args, **kwargs)

    def rehearsing(self: Replay, *args: Any) -> Any:
        ran[self.part] += 1
        return rehearse(self, *args)

    monkeypatch.setattr(Replay, "__call__", calling)
    monkeypatch.setattr(Replay, "_rehearse", rehearsing)
    methods = ("--methods", "rlr,ddpo,alignprop,zo,full_bp", *SMALL, "--set", "model.steps=20")
    profile(*methods, "--simulate", "--out", str(tmp_path))
    assert len(pd.read_csv(tmp_path / "profile.csv")) == 5
    assert called["network"] > 150
    assert ran["network"] <= 9 and ran["vae"] <= 2 and ran["reward"] <= 2, ran


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rlr", "truncated_bp", "full_bp"])
def test_staged_stable_diffusion_needs_12_gib_and_6_with_checkpointing(
    method: str, simulate: Simulator
) -> None:
    """Batch 4, float16, a reward of CLIP-H's size, one picture at a time through decoder and reward."""
    settings = (PLAIN[1], TOGETHER) if method == "rlr" else (PLAIN[1],)
    plain = planned("sd14", method, PLAIN[0], *settings, reward="pickscore").cells[0].config
    checkpointed = planned("sd14", method, *settings, reward="pickscore").cells[0].config
    assert simulate(plain).device <= 12 * GIB
    assert simulate(checkpointed).device <= 6 * GIB


@pytest.mark.slow
def test_joint_half_order_step_on_stable_diffusion_takes_the_papers_8_gb(simulate: Simulator) -> None:
    together = ("rlr-h1.one_start=true", "rlr-h4.one_start=true")
    found = planned("sd14", "rlr-h1,rlr-h4", PLAIN[0], *together, reward="pickscore", graphs="joint")
    one, four = (simulate(cell.config).device for cell in found.cells)
    assert (four - one) / 3 / 1e9 == pytest.approx(8.0, rel=0.1)
