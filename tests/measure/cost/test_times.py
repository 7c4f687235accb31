"""Time of a step: parts that add up, what networks take of it, and predictions from a device's throughput."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bench.base.errors import BenchError
from bench.cli.main import app
from bench.engine.stages import DECODE, REWARD, listening, stage
from bench.measure.cost import calibrate, times
from bench.measure.cost.calibrate import Calibration, Check
from bench.measure.cost.plan import merged, varied
from bench.measure.cost.times import Stopwatch
from tests.measure.cost.cells import planned

CPU = torch.device("cpu")


class Clock:
    """Time that passes in `sleep` alone."""

    def __init__(self) -> None:
        self.now = 7.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The stopwatch's."""
    found = Clock()
    monkeypatch.setattr(times, "time", found)
    return found


def test_seconds_belong_to_the_innermost_stage_and_add_up(clock: Clock) -> None:
    watch = Stopwatch(CPU)
    clock.sleep(0.25)
    with listening(watch), stage(REWARD):
        watch.called(clock.sleep)(2.0)
        with stage(DECODE):
            clock.sleep(1.0)
        clock.sleep(0.5)
    found = watch.stop()
    assert (found.parts["reward"], found.parts["decode"], found.parts["rest"]) == (2.5, 1.0, 0.25)
    assert found.total == clock.now - 7.0 == 3.75
    assert found.network == 2.0
    assert found.overhead == 3.75 / 2.0


def test_a_network_inside_a_network_counts_once(clock: Clock) -> None:
    watch = Stopwatch(CPU)
    inner = watch.called(clock.sleep)
    watch.called(lambda: inner(2.0))()
    assert watch.network == 2.0


def test_predictions_are_operations_over_throughput_by_stage_and_part() -> None:
    speed = Calibration(
        device="d", threads=1, model="m", reward="r",
        throughput={"network forward": 10.0, "network backward": 5.0, "reward forward": 2.0},
        checks={"rlr": Check(predicted=0.9, measured=1.0), "zo": Check(predicted=1.2, measured=1.0)},
    )  # fmt: skip
    operations = {
        ("rollout", "network", "forward"): 100,
        ("first order", "network", "forward"): 10,
        ("first order", "network", "backward"): 20,
        ("reward", "reward", "forward"): 4,
        ("", "other", "forward"): 10,  # the text encoder has no rate of its own
    }
    found = speed.predict(operations)
    of_before = speed.model_dump() | {"throughput": {"unet forward": 10.0, "unet backward": 5.0}}
    assert set(Calibration.model_validate(of_before).throughput) == {"network forward", "network backward"}
    assert found.parts == {
        "sampling": 10, "decode": 0, "reward": 2, "backward": 5, "optimizer": 0, "rest": 1,
    }  # fmt: skip
    assert speed.error == pytest.approx(0.2)


def test_what_is_no_calibration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="--calibrate"):
        calibrate.load(tmp_path / "missing.json")
    (tmp_path / "other.json").write_text('{"device": "d"}')
    with pytest.raises(BenchError, match="--calibrate"):
        calibrate.load(tmp_path / "other.json")


def test_settings_are_varied_in_every_combination_and_no_cell_comes_twice() -> None:
    assert varied(["a.b=1,2", "c=x"]) == [["a.b=1", "c=x"], ["a.b=2", "c=x"]]
    assert varied([]) == [[]]
    with pytest.raises(BenchError, match="--vary a"):
        varied(["a"])
    found = merged([planned("tiny", "rlr,zo", f"rlr.h={h}") for h in (1, 2)])
    assert [cell.config.label for cell in found.cells].count("zo") == 1
    assert len(found.cells) == 3


@pytest.mark.slow
def test_a_calibrated_device_predicts_seconds_and_says_how_well(tmp_path: Path) -> None:
    """Timings of a busy machine are no test of the error; its order of magnitude is."""

    def profile(*arguments: str) -> str:
        options = ["profile", "--methods", "zo", "--out", str(tmp_path), "--set", "model.steps=4", *arguments]
        found = CliRunner().invoke(app, options, env={"COLUMNS": "80"}, catch_exceptions=False)
        assert found.exit_code == 0, found.output
        return found.stdout

    shown = profile("--calibrate")
    speed = calibrate.load(tmp_path / calibrate.FILE)
    assert {"network forward", "network backward", "vae forward", "reward backward"} <= set(speed.throughput)
    check = speed.checks["zo"]
    assert check.measured / 5 < check.predicted < check.measured * 5
    assert "predicted s" in shown
    assert "predicted from the throughput" in profile("--simulate")
    profile("--measure")
    import pandas as pd

    table = pd.read_csv(tmp_path / "profile.csv").set_index("mode")
    assert table["seconds_from"].to_dict() == {"simulated": "predicted", "measured": "measured"}
    parts = [f"{kind}_seconds" for kind in ("sampling", "decode", "reward", "backward", "optimizer", "rest")]
    assert table[parts].sum(axis=1).to_numpy() == pytest.approx(table["seconds"].to_numpy())
    assert 1 <= table.loc["measured", "overhead"] < 5
