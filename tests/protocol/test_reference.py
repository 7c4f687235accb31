"""What ships of the reference results: records, the leaderboard they make, and the demo's settings."""

from pathlib import Path

import pytest

from bench.base.layers import read_yaml, shipped
from bench.protocol.tune import tuned
from tests.support.running import here

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "results" / "reference" / "embedded"


@pytest.mark.slow
def test_the_leaderboard_is_what_the_records_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    page = tmp_path / "leaderboard.md"
    done = here("leaderboard", "--out", page)
    assert done.returncode == 0, done.stdout + done.stderr
    written = {path.relative_to(tmp_path): path for path in tmp_path.rglob("*") if path.is_file()}
    docs = ROOT / "docs"
    stored = {path.relative_to(docs) for path in (docs / "images").glob("leaderboard-*")}
    assert set(written) == stored | {Path("leaderboard.md")}
    assert [str(name) for name in written if written[name].read_bytes() != (docs / name).read_bytes()] == []


def test_the_demo_has_the_settings_that_tuning_chose() -> None:
    demo, workload = read_yaml(shipped("experiments")["demo"]), read_yaml(shipped("workloads")["emoji-clip"])
    settings = demo["settings"]
    chosen = tuned(RECORD / "emoji-clip", demo["methods"]).tree
    assert {m: settings[m] for m in demo["methods"] if m != "random-direction"} == chosen
    assert "random-direction" not in settings  # it is not tuned
    assert settings["train"]["budget"] == workload["budget"]
    assert settings["model"] == workload["settings"]["model"]
    assert (demo["model"], "random-direction" in demo["methods"]) == (workload["model"], True)
