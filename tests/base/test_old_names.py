"""Plugins and scripts written against the module names of before the rooms run for one release."""

import os
import re
import subprocess
import sys
from importlib import import_module, util
from pathlib import Path

import pytest

from bench.base import old_names
from tests.support.running import DOTS, PLUGIN, ROOT, environment

THEN = """from bench.chain import Kind, Plan, Segment, State, Transition
from bench.engine import UNIT_WEIGHTS, Engine
from bench.method import Batch, Method, Report, Term
from bench.models.config import ModelConfig
from bench.plan_method import Estimator, PlanMethod
from bench.reward import Reward
from bench.schema import Strict
from bench.streams import normal
"""


@pytest.mark.slow
def test_a_plugin_written_against_the_old_names_runs(tmp_path: Path) -> None:
    """Its entry points too: all of it is imported through them."""
    plugin = tmp_path / "plugin"
    (plugin / "old_plugin-1.0.dist-info").mkdir(parents=True)
    text = (PLUGIN / "bench_test_plugin.py").read_text()
    lines = re.findall(r"^from bench.*\n", text, re.MULTILINE)
    assert len(lines) > 5
    for line in lines[1:]:
        text = text.replace(line, "")
    (plugin / "old_plugin.py").write_text(text.replace(lines[0], THEN))
    for file in PLUGIN.glob("*.dist-info/*"):
        found = file.read_text().replace("bench_test_plugin", "old_plugin").replace("bench-test", "old")
        (plugin / "old_plugin-1.0.dist-info" / file.name).write_text(found)
    path = os.pathsep.join((str(plugin), str(ROOT)))
    command = ["-W", "default", "-m", "bench", "run", "--model", DOTS, "--methods", "push,leaning"]
    ran = subprocess.run(
        [sys.executable, *map(str, command), "--steps", "2", "--no-report", "--out", str(tmp_path / "out")],
        env=environment() | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "DeprecationWarning: bench.chain is now bench.engine.chain and bench.engine.plan" in ran.stderr


@pytest.mark.parametrize("name", [*old_names.MOVED, *old_names.PACKAGES])
def test_every_old_name_leads_to_modules_that_are_there(name: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"bench\.{name} is now bench\."):
        sys.modules.pop(f"bench.{name}", None)
        import_module(f"bench.{name}")


def test_what_never_was_is_not_found() -> None:
    assert util.find_spec("bench.nonsense") is None
    with pytest.warns(DeprecationWarning), pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        sys.modules.pop("bench.chain", None)
        exec("from bench.chain import Nothing")


def test_what_was_in_a_package_is_found_in_the_one_of_now() -> None:
    with pytest.warns(DeprecationWarning):
        sys.modules.pop("bench.vbench.results", None)
        found = import_module("bench.vbench.results")
    assert found.read is import_module("bench.measure.vbench.results").read
