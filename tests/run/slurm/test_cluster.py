from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench.base import registry
from bench.base.errors import BenchError
from bench.base.layers import profiles
from bench.experiment import request
from bench.experiment.request import Options
from bench.experiment.resolve import resolve_all
from bench.experiment.settings import CellConfig
from bench.run.slurm import cluster
from bench.run.slurm.cluster import Profile, Resources
from bench.run.slurm.sbatch import megabytes, minutes
from bench.run.slurm.submit import cpus
from tests.support.running import plan_dots


def written(folder: Path, text: str) -> str:
    """A profile's file."""
    file = folder / "cluster.yaml"
    file.write_text(text)
    return str(file)


def config(method: str | None = "rlr") -> CellConfig:
    """A cell of the tiny model with that method; None: its base model."""
    options = Options(methods=method or "rlr", model="tiny")
    found = [cell.config for cell in resolve_all(request.build(options).combinations, fetch=False)]
    return next(one for one in found if (one.training is None) == (method is None))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", 90),
        ("4h", 240),
        ("1d", 1440),
        ("04:30:00", 270),
        ("00:00:01", 1),
        ("2-01:00:00", 2940),
        ("1-00:00:30", 1441),
        (30, 30),
        ("30", 30),
        ("2-0", 2880),
        ("1-12:30", 2190),
        ("90:30", 91),
    ],
)
@pytest.mark.silent
def test_times_are_minutes(text: object, expected: int) -> None:
    assert minutes(text) == expected


@pytest.mark.slow
@given(st.integers(0, 9), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_slurms_own_times_are_read_and_rounded_up(days: int, hours: int, mins: int, seconds: int) -> None:
    exact = ((days * 24 + hours) * 60 + mins) * 60 + seconds
    assert 0 <= minutes(f"{days}-{hours:02d}:{mins:02d}:{seconds:02d}") * 60 - exact < 60


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512MB", 512),
        ("512M", 512),
        ("40GB", 40960),
        ("40 GiB", 40960),
        ("1T", 1048576),
        ("2g", 2048),
        (7, 7),
        (0, 0),
        ("1.5T", 1572864),
        ("2000", 2000),
        ("100K", 1),
    ],
)
@pytest.mark.silent
def test_memory_is_mebibytes(text: object, expected: int) -> None:
    assert megabytes(text) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("time: 4 hours", "time: expected a time such as 90m, 4h, 1d, 04:00:00 or 2-0 (got '4 hours')"),
        ("time: 0", "time: input should be greater than or equal to 1 (got 0)"),
        ("mem: lots", "mem: expected memory such as 512MB or 40GB (got 'lots')"),
        ("gres: shard:3", "gres: expected gpu:TYPE:COUNT; everything else goes under options"),
        ("options: {mem: 3G, array: 1}", "options: the program sets array itself"),
        ("options: {mem: 3G}", "options.mem: the profile's key mem says this"),
        ("options: {c: 3}", "options.cpus-per-task: the profile's key cpus says this"),
        ("options: {--output: x}", "options: the program sets output itself"),
        ("options: {x: n1, exclude: n2}", "options: exclude is there twice"),
        ("options: {'--': n1}", "options: '--' is no option of sbatch"),
        ("mem: 4GB\noptions: {mem_per_cpu: 2G}", "mem and options.mem-per-cpu exclude each other"),
        ("gpus: 1\ngres: gpu:a100:2", "say either gpus or gres"),
        ("partitoin: main", "partitoin: unknown key. Did you mean 'partition'?"),
        ("methods: {rlr: {mme: 40GB}}", "methods.rlr.mme: unknown key. Did you mean 'mem'?"),
        ("methods: {rlr: {warning: 60}}", "methods.rlr.warning: unknown key."),
        ("methods: {rrl: {mem: 40GB}}", "methods.rrl: unknown name. Did you mean 'rlr'?"),
        ("models: {sd144: {mem: 40GB}}", "models.sd144: unknown name. Did you mean 'sd14'?"),
        ("methods: {rlr: {gpus: 1, gres: 'gpu:2'}}", "say either gpus or gres"),
        ("warning: 10", "warning: input should be greater than or equal to 30 (got 10)"),
        ("time: 2m\nwarning: 100", "a warning 100 s before the end leaves nothing of 2 minutes"),
        ("time: 1h\nmethods: {rlr: {time: 2m}}", "methods.rlr: a warning 120 s before the end leaves"),
    ],
)
@pytest.mark.silent
def test_mistake_says_file_key_and_what_to_do(tmp_path: Path, line: str, message: str) -> None:
    file = written(tmp_path, line)
    with pytest.raises(BenchError) as error:
        cluster.load(file)
    assert str(error.value).startswith(file)
    assert message in str(error.value)


def test_profile_that_is_not_known_is_told_with_the_closest_one() -> None:
    with pytest.raises(BenchError, match=r"--profile locl: .*Did you mean 'local'\? Known: .*local"):
        cluster.load("locl")


def test_every_shipped_profile_is_valid_and_begins_with_a_comment() -> None:
    assert profiles()
    for name, path in profiles().items():
        assert isinstance(cluster.load(name), Profile)
        assert path.read_text().startswith("# ")


LAYERS = """
mem: 1GB
time: 1h
cpus: 2
gpus: 1
methods:
  rlr: {mem: 4GB, options: {exclusive: true}}
  zo: {mem: 2GB, time: 2h}
  zo-antithetic: {time: 3h}
  base: {gpus: 0}
models:
  tiny: {mem: 3GB, cpus: 4}
"""


def test_method_goes_over_model_over_profile(tmp_path: Path) -> None:
    found = cluster.load(written(tmp_path, LAYERS)).resources(config("rlr"))
    assert (found.mem, found.time, found.cpus, found.gpus) == (4096, 60, 4, 1)
    assert found.options == {"exclusive": True}


def test_preset_takes_its_bases_block_and_then_its_own(tmp_path: Path) -> None:
    assert registry.entries("method")["zo-antithetic"].base == "zo"
    found = cluster.load(written(tmp_path, LAYERS)).resources(config("zo-antithetic"))
    assert (found.mem, found.time, found.cpus) == (2048, 180, 4)


def test_base_models_cells_have_a_block_of_their_own(tmp_path: Path) -> None:
    assert cluster.load(written(tmp_path, LAYERS)).resources(config(None)).gpus == 0


def test_method_without_a_block_gets_the_models_and_the_profiles(tmp_path: Path) -> None:
    found = cluster.load(written(tmp_path, LAYERS)).resources(config("ddpo"))
    assert (found.mem, found.time, found.cpus, found.options) == (3072, 60, 4, {})


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [("gpus: 4", "gres: 'gpu:a100:2'", (0, 2)), ("gres: 'gpu:a100:2'", "gpus: 4", (4, 4))],
)
def test_a_block_may_say_gpus_the_other_way(
    tmp_path: Path, below: str, above: str, expected: tuple[int, int]
) -> None:
    found = cluster.load(written(tmp_path, f"{below}\nmethods: {{rlr: {{{above}}}}}")).resources(
        config("rlr")
    )
    assert (found.gpus, found.gpus_per_node) == expected
    assert found.processes_per_node == expected[1]


def test_changes_go_over_the_profile_and_over_its_blocks(tmp_path: Path) -> None:
    changes = ("mem=8GB", "time=90m", "partition=fast", "max_parallel=3", "gres=gpu:v100:2")
    found = cluster.load(written(tmp_path, LAYERS), changes)
    assert (found.mem, found.time, found.partition, found.max_parallel) == (8192, 90, "fast", 3)
    assert (found.gpus, found.gpus_per_node) == (0, 2)
    rlr = found.resources(config("rlr"))
    assert (rlr.mem, rlr.cpus, rlr.options) == (8192, 4, {"exclusive": True})
    assert found.resources(config("zo-antithetic")).time == 90
    assert found.resources(config(None)).gpus_per_node == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("mem", "--with mem: expected KEY=VALUE, such as mem=80GB or time=8h"),
        ("mme=80GB", "--with mme=80GB: mme: unknown key. Did you mean 'mem'?"),
        ("mem=lots", "--with mem=lots: mem: expected memory such as"),
        ("time=1m", "a warning 120 s before the end leaves nothing of 1 minutes"),
    ],
)
def test_mistyped_change_is_one_message(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(BenchError) as error:
        cluster.load(written(tmp_path, "mem: 1GB"), (change,))
    assert message in str(error.value)


def test_recorded_profile_is_read_back_as_it_was_and_takes_changes(tmp_path: Path) -> None:
    before = cluster.load(written(tmp_path, LAYERS + "setup: [module load cuda]\nsrun: [--export=ALL]"))
    assert cluster.again(before.model_dump(mode="json")) == before
    more = cluster.again(before.model_dump(mode="json"), ("mem=9GB", "gres=gpu:2"))
    assert (more.mem, more.gpus, more.gpus_per_node) == (9216, 0, 2)


def test_resources_as_yaml_are_read_back_as_they_were() -> None:
    before = Resources(mem=2048, time=90, gres="gpu:a100:2", options={"reservation": "spring"})
    text = yaml.safe_dump(before.model_dump(mode="json"))
    assert Resources.model_validate(yaml.safe_load(text)) == before


def test_cpus_are_threads_times_processes_unless_the_profile_says_more(plugin: None, tmp_path: Path) -> None:
    first = plan_dots(tmp_path)[0]
    work = replace(first, config=first.config.model_copy(update={"threads": 3}))
    assert cpus(Resources(), work) == 3
    assert cpus(Resources(gpus=4), work) == 12
    assert cpus(Resources(cpus=8), work) == 8
    with pytest.raises(BenchError, match=rf"{work.id}: runs with 3 threads, and the profile gives it 2 cpus"):
        cpus(Resources(cpus=2), work)


@pytest.mark.silent
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("{--exclude: n1}", {"exclude": "n1"}),
        ("{x: n1, w: n2}", {"exclude": "n1", "nodelist": "n2"}),
        ("{mem_per_cpu: 2G}", {"mem-per-cpu": "2G"}),
        ("{exclusive: false, mem: false}", {"exclusive": False, "mem": False}),
    ],
)
def test_options_are_known_by_any_spelling(tmp_path: Path, line: str, found: dict[str, object]) -> None:
    assert cluster.load(written(tmp_path, f"options: {line}")).options == found


@pytest.mark.silent
def test_gres_without_a_count_is_one_gpu(tmp_path: Path) -> None:
    for text, gres in (("gpu", "gpu:1"), ("gpu:a100", "gpu:a100:1"), ("gpu:4", "gpu:4")):
        profile = cluster.load(written(tmp_path, f"gres: {text}"))
        assert (profile.gres, profile.gpus_per_node) == (gres, int(gres[-1]))
