"""Simulated memory: against measured memory, against itself step by step, and what it depends on."""

from collections.abc import Iterator

import pytest
import torch

from bench.base import registry
from bench.base.errors import BenchError
from bench.experiment.settings import CellConfig
from bench.measure.cost.fake_model import Faker
from bench.measure.cost.measure import measure
from bench.measure.cost.simulate import Simulator
from bench.measure.cost.usage import Usage
from tests.measure.cost.cells import planned
from tests.support.pipelines import pipeline_dir

pytestmark = pytest.mark.slow

STEPS = 6  # room for the longest preset
# Every method class, and the presets that hold other tensors than their class.
NAMES = [
    name
    for name, entry in registry.entries("method").items()
    if entry.load().trains
    and (entry.base is None or name in ("rlr-cv", "rlr-antithetic", "rlr-resampled", "rlr-fo"))
]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def simulate() -> Iterator[Simulator]:
    """One for all tests: networks and rehearsals are shared."""
    yield Simulator()


@pytest.fixture(scope="module")
def run_every_call() -> Iterator[Simulator]:
    """The same without rehearsals."""
    yield Simulator(replay=False)


def cell(
    method: str, *settings: str, steps: int = STEPS, graphs: str = "staged", reward: str = "colourfulness"
) -> CellConfig:
    """A method's cell on a random pipeline with few layers; one and two rows are all there is to rehearse."""
    small = (f"model.steps={steps}", "model.guidance=1", "model.lora.rank=16")
    model = f"path:{pipeline_dir()}"
    batch = 4 if method == "rlr-antithetic" else 2  # pairs
    found = planned(model, method, *small, *settings, graphs=graphs, batch=batch, reward=reward)
    return found.cells[0].config


@pytest.mark.parametrize("name", NAMES)
def test_simulated_and_measured_memory_agree_within_2_percent(name: str, simulate: Simulator) -> None:
    config = cell(name, "train.reward_chunk=1")  # so that the peak is not decoder's and reward's
    simulated, measured = simulate(config), measure(config, CPU)
    assert simulated.device == pytest.approx(measured.device, rel=0.02)
    assert simulated.work == measured.work
    assert simulated.flops == pytest.approx(measured.flops, rel=0.02)
    for kind in ("weights", "lora", "optimizer"):
        assert simulated.of(kind) == measured.of(kind)


@pytest.mark.parametrize("name", ["full_bp", "grpo"])
def test_the_references_runs_of_a_kl_term_are_simulated_as_measured(name: str, simulate: Simulator) -> None:
    config = cell(name, f"{name}.eta=1", "train.kl=0.1", "train.reward_chunk=1", steps=3)
    simulated, measured = simulate(config), measure(config, CPU)
    assert simulated.device == pytest.approx(measured.device, rel=0.02)
    assert simulated.work == measured.work
    assert simulated.flops == pytest.approx(measured.flops, rel=0.02)
    assert simulated.work.forward > simulate(cell(name, f"{name}.eta=1", steps=3)).work.forward


@pytest.mark.parametrize("settings", [["model.guidance=4"], ["model.gradient_checkpointing=true"]])
def test_simulated_and_measured_memory_agree_with_options(settings: list[str], simulate: Simulator) -> None:
    config = cell("rlr", *settings)
    assert simulate(config).device == pytest.approx(measure(config, CPU).device, rel=0.02)


@pytest.mark.parametrize("graphs", ["staged", "joint"])
def test_offload_is_simulated_as_measured_on_the_device_and_in_main_memory(
    graphs: str, simulate: Simulator
) -> None:
    config = cell("full_bp", "model.offload=true", graphs=graphs, steps=3)
    simulated, measured = simulate(config), measure(config, CPU)
    assert simulated.device == pytest.approx(measured.device, rel=0.02)
    assert simulated.host == pytest.approx(measured.host, rel=0.02)
    assert simulated.host > 0
    assert simulate(cell("full_bp", graphs=graphs, steps=3)).host == 0


@pytest.mark.parametrize("graphs", ["staged", "joint"])
@pytest.mark.parametrize("name", ["rlr", "full_bp", "alignprop", "zo", "refl", "drtune", "adjoint_matching"])
def test_rehearsed_calls_take_what_running_every_call_takes(
    name: str, graphs: str, simulate: Simulator, run_every_call: Simulator
) -> None:
    config = cell(name, *(("drtune.k=2",) if name == "drtune" else ()), graphs=graphs, steps=4)
    short, long = simulate(config), run_every_call(config)
    assert short.device == pytest.approx(long.device, rel=0.005)
    assert short.work == long.work
    assert short.flops == pytest.approx(long.flops, rel=0.01)


def grown(few: Usage, many: Usage) -> float:
    """Bytes of a peak beyond those of stored latents."""
    return many.device - many.of("latents") - (few.device - few.of("latents"))


@pytest.mark.parametrize("name", ["rlr", "full_bp", "ddpo", "zo"])
def test_staged_peaks_do_not_grow_with_steps_beyond_stored_latents(name: str, simulate: Simulator) -> None:
    together = ("rlr.one_start=true",) if name == "rlr" else ()  # else steps are of one sample or of two
    few, many = (simulate(cell(name, *together, steps=steps)) for steps in (6, 18))
    assert abs(grown(few, many)) < 0.005 * few.device


def test_staged_peaks_do_not_grow_with_h(simulate: Simulator) -> None:
    few, many = (simulate(cell("rlr", f"rlr.h={h}", "rlr.one_start=true", steps=8)) for h in (2, 5))
    assert abs(grown(few, many)) < 0.02 * few.device  # one step's graph is 0.12 of it


def test_joint_peaks_grow_by_one_graph_for_every_step_that_has_one(simulate: Simulator) -> None:
    h = [simulate(cell("rlr", f"rlr.h={h}", steps=8, graphs="joint")).device for h in (2, 3, 4)]
    full = [simulate(cell("full_bp", steps=t, graphs="joint")).device for t in (4, 6, 8)]
    assert h[2] - h[1] == pytest.approx(h[1] - h[0], rel=0.02)
    assert full[2] - full[1] == pytest.approx(full[1] - full[0], rel=0.02)
    assert (full[1] - full[0]) / 2 == pytest.approx(h[1] - h[0], rel=0.1)


def test_half_means_float16_as_on_a_gpu(simulate: Simulator) -> None:
    usage = simulate(cell("zo", "model.dtype=half", steps=2))
    assert usage.dtype == "float16"
    assert usage.resolution == 16


def test_a_simulation_leaves_nothing_behind() -> None:
    before = torch.nn.Module._apply
    Simulator()(cell("zo", steps=2))
    assert torch.nn.Module._apply is before
    assert torch.nn.Linear(2, 2).double().weight.dtype is torch.float64


@pytest.mark.parametrize("reward", ["hpsv2", "pickscore", "clipscore", "colourfulness", "jpeg"])
def test_rewards_are_simulated_in_their_true_size_without_their_weights(
    reward: str, simulate: Simulator
) -> None:
    if reward == "hpsv2":
        pytest.importorskip("hpsv2", reason="`make scorers`")
    usage = simulate(cell("zo", steps=2, reward=reward))
    parameters = registry.load("reward", reward).parameters
    size = 4 if reward == "clipscore" else 2
    assert usage.of("weights reward") == pytest.approx(size * parameters, rel=1e-4)


def test_an_unknown_model_is_refused_with_what_to_fetch() -> None:
    found = planned("hub:nobody/nothing", "zo", "model.steps=2")
    with pytest.raises(BenchError, match="shapes of nobody/nothing"):
        Faker().chain(found.cells[0].config.model.config)
