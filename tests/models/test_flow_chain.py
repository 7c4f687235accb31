"""Estimators on flow-matching chains whose expected reward has a closed form: v = W x + b, reward quadratic.

The chain runs the solvers that Stable Diffusion 3 runs, from pure noise to none. Its noise levels are even:
the last but one of diffusers' scheduler is so small that likelihood ratios there drown all others
(docs/models.md).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import bench.engine.rollout
from bench.engine.advantages import advantages
from bench.engine.batch import Batch, Perturbation
from bench.engine.chain import Level, State, Transition
from bench.engine.control_variate import Control, Scale
from bench.engine.plan import Kind, Plan, Segment, tiled
from bench.models.flow import FlowSolver, FlowSolverName
from examples.linear_gaussian import NoCondition, QuadraticReward, unflatten
from tests.support import fast_streams
from tests.support.statistics import Estimate, compare
from tests.support.toys import engine_of, gradient

STEPS, DIM = 4, 2
REWARD = QuadraticReward([0.5, -1.0])
FO, HO, ZO, SKIP = Kind.FO, Kind.HO, Kind.ZO, Kind.SKIP


@pytest.fixture(autouse=True)
def _fast_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.engine.rollout, "normal", fast_streams.normal)


class VelocityChain:
    """A linear velocity and a flow solver's steps; media are latents."""

    steps, latent_shape, evaluations_per_step, device = STEPS, (DIM,), 1, torch.device("cpu")

    def __init__(self, solver: FlowSolver) -> None:
        generator = torch.Generator().manual_seed(0)
        self.solver = solver
        self.weight = torch.nn.Parameter(0.3 * torch.randn(DIM, DIM, generator=generator))
        self.drift = torch.nn.Parameter(0.3 * torch.randn(DIM, generator=generator))
        self._untrained = [
            torch.nn.Parameter(p.detach().clone(), requires_grad=False) for p in self.parameters()
        ]
        self._delta: Tensor | None = None

    def condition(self, prompts: Sequence[str]) -> NoCondition:
        """There is nothing to embed."""
        return NoCondition()

    def prior(self, noise: Tensor) -> State:
        """The solver's."""
        return self.solver.prior(noise)

    def level(self, i: int) -> Level:
        """The solver's."""
        return self.solver.level(i)

    def noised(self, x0: Tensor, noise: Tensor, i: int) -> State:
        """x_0 noised to step i's level."""
        return State(self.level(i).of(x0, noise))

    def decode(self, x: Tensor, frames: Tensor | None = None) -> Tensor:
        """Media are the latents."""
        return x

    def parameters(self) -> list[torch.nn.Parameter]:
        """W and b."""
        return [self.weight, self.drift]

    @contextmanager
    def perturbed(self, delta: Tensor) -> Iterator[None]:
        """Row r runs with (W, b) + delta[r]."""
        self._delta = delta
        try:
            yield
        finally:
            self._delta = None

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Every row runs with the (W, b) that the chain was made with."""
        trained = self.parameters()
        self.weight, self.drift = self._untrained
        try:
            yield
        finally:
            self.weight, self.drift = trained

    def velocity(self, x: Tensor, x_path_only: bool, detach_input: bool = False) -> Tensor:
        """W x + b, of each row's own parameters where they are perturbed."""
        x = x.detach() if detach_input else x
        output = x @ self.weight.T + self.drift
        if self._delta is not None:
            weight, drift = unflatten(self._delta, DIM)
            output = output + (weight @ x[:, :, None])[:, :, 0] + drift
        return output.detach() if x_path_only else output

    def transition(
        self,
        state: State,
        i: int,
        cond: NoCondition,
        eta: Tensor,
        x_path_only: bool = False,
        detach_input: bool = False,
    ) -> Transition:
        """The solver's."""
        return self.solver.transition(state, self.velocity(state.x, x_path_only, detach_input), i, eta)

    def predict_x0(
        self, state: State, i: int, cond: NoCondition, x_path_only: bool = False, detach_input: bool = False
    ) -> Tensor:
        """The solver's."""
        return self.solver.predict_x0(state, self.velocity(state.x, x_path_only, detach_input), i)


def chain_of(name: FlowSolverName) -> VelocityChain:
    """Four even steps."""
    sigma = torch.linspace(1, 0, STEPS + 1)
    return VelocityChain(FlowSolver(name, 1000 * sigma[:-1], sigma[:-1], sigma[1:]))


def exact(chain: VelocityChain, eta: tuple[float, ...]) -> Tensor:
    """The gradient of E[R], by mean and covariance of each x_i, flat [d].

    What a step does to x and to v is read off the solver, which is held to its papers elsewhere.
    """
    theta = torch.cat([p.detach().double().flatten() for p in chain.parameters()]).requires_grad_()
    weight, drift = unflatten(theta, DIM)
    one = torch.eye(DIM, dtype=torch.float64)
    mean, covariance = torch.zeros(DIM, dtype=torch.float64), one
    for i in range(STEPS):
        unit, zero, noise = torch.ones(1, 1), torch.zeros(1, 1), torch.tensor([eta[i]])
        of_x = chain.solver.transition(State(unit), zero, i, noise)
        of_v = float(chain.solver.transition(State(zero), unit, i, noise).mean)
        matrix = float(of_x.mean) * one + of_v * weight
        mean = matrix @ mean + of_v * drift
        covariance = matrix @ covariance @ matrix.T + float(of_x.std) ** 2 * one
    return torch.autograd.grad(REWARD.expected(mean, covariance), theta)[0]


def estimated(
    plan: Plan, perturbation: Perturbation | None = None, control: Control | None = None
) -> Estimate:
    """The engine's gradient of a plan, with leave-one-out advantages."""

    def estimate(engine: Any, batch: Batch) -> None:
        trajectory = engine.rollout([plan] * len(batch.prompts), batch, perturbation)
        against = advantages(trajectory.signed, batch.prompts, "loo")
        engine.gradient(trajectory, against, control=control)

    return estimate


CONTROL = Control((Scale(1.0, 0.5, -1.0),) * STEPS)
WIDE = Perturbation(scale=0.3)
RLR = Plan((Segment(ZO, 0, 1), Segment(HO, 1, 3), Segment(FO, 3, 4)), (0.0, 0.0, 0.7, 0.0))
EVERYWHERE = (0.7,) * STEPS
NOT_LAST = (0.7, 0.7, 0.7, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "estimate", "eta"),
    [
        ("euler", estimated(Plan((Segment(FO, 0, STEPS),), (0.0,) * STEPS)), (0.0,) * STEPS),
        ("flow_sde", estimated(Plan((Segment(FO, 0, STEPS),), EVERYWHERE)), EVERYWHERE),
        ("flow_sde", estimated(tiled([HO] * STEPS, EVERYWHERE)), EVERYWHERE),
        ("flow_sde", estimated(tiled([HO] * STEPS, EVERYWHERE), control=CONTROL), EVERYWHERE),
        ("flow_sde", estimated(Plan((Segment(HO, 0, 2), Segment(HO, 2, 4)), EVERYWHERE)), EVERYWHERE),
        ("flow_sde", estimated(RLR, WIDE), RLR.eta),
        ("flow_cps", estimated(tiled([HO, HO, HO, FO], NOT_LAST)), NOT_LAST),
        ("flow_cps", estimated(tiled([HO, HO, HO, FO], NOT_LAST), control=CONTROL), NOT_LAST),
        ("flow_cps", estimated(RLR, WIDE), RLR.eta),
    ],
    ids=["ode", "sde", "ho", "ho-cv", "ho-blocks", "rlr", "cps", "cps-cv", "cps-rlr"],
)
def test_estimators_are_unbiased_on_flow_chains(
    name: FlowSolverName, estimate: Estimate, eta: tuple[float, ...]
) -> None:
    chain = chain_of(name)
    found = compare(engine_of(chain, REWARD, micro_batch=512), estimate, batches=60, size=512)
    assert found.agrees, f"p = {found.p_value:.2g}, bias {found.bias:.2g} ± {found.relative_error:.2g}"
    assert found.relative_error < 0.3
    if eta != RLR.eta:  # whose perturbations smooth the objective
        target = exact(chain, eta)
        assert float((found.target - target).norm() / target.norm()) < 0.05  # over 30,000 rows


def test_a_dropped_step_is_found_to_be_biased() -> None:
    """The comparison above can fail."""
    estimate = estimated(tiled([SKIP, HO, HO, HO], EVERYWHERE))
    chain = chain_of("flow_sde")
    found = compare(engine_of(chain, REWARD, micro_batch=512), estimate, batches=60, size=512)
    assert not found.agrees


def test_half_order_steps_need_noise_and_are_told_which_solver_has_it() -> None:
    for name, kinds in (("flow_cps", [HO] * STEPS), ("euler", [HO, FO, FO, FO])):
        engine = engine_of(chain_of(name), REWARD)  # type: ignore[arg-type]
        with pytest.raises(Exception, match=r"injects no noise.*model\.solver=flow_sde"):
            engine.rollout([tiled(kinds, [0.7] * STEPS)] * 2, Batch(("a", "a"), 0))


@pytest.mark.parametrize("name", ["flow_sde", "flow_cps"])
def test_a_one_step_readout_is_differentiable(name: FlowSolverName) -> None:
    """ReFL's plan: two steps, then x̂_0 = x - σ v; its gradient is autograd's."""
    chain = chain_of(name)
    plan = Plan((Segment(SKIP, 0, 2), Segment(FO, 2, 3)), (0.0, 0.0, 0.0), readout=2)
    engine = engine_of(chain, REWARD)
    trajectory = engine.rollout([plan] * 3, Batch(("a",) * 3, 0))
    engine.gradient(trajectory, torch.zeros(3))
    x = trajectory.micros[0].states[2].x
    x0 = x - chain.solver.sigma[2] * chain.velocity(x, False)
    found = torch.autograd.grad(REWARD.score(x0, ["a"] * 3).mean(), chain.parameters())
    torch.testing.assert_close(gradient(chain), torch.cat([g.flatten() for g in found]))


@pytest.mark.parametrize(("name", "eta"), [("euler", 0.0), ("flow_sde", 0.7), ("flow_cps", 0.7)])
def test_steps_with_a_detached_input_are_autograds(name: FlowSolverName, eta: float) -> None:
    """DRTune's plan: x_{i+1} = a x_i + b v(x_i, detached) + noise, so that a alone is multiplied."""
    chain = chain_of(name)
    plan = tiled([SKIP, Kind.DI, Kind.PASS, Kind.DI], (eta,) * STEPS)
    engine = engine_of(chain, REWARD)
    trajectory = engine.rollout([plan] * 3, Batch(("a",) * 3, 0))
    engine.gradient(trajectory, torch.zeros(3))
    (micro,) = trajectory.micros
    x = micro.states[1].x
    for i in range(1, STEPS):
        v = chain.velocity(micro.states[i].x, x_path_only=i == 2)
        out = chain.solver.transition(State(x), v, i, torch.full((3,), eta))
        x = out.mean + (micro.states[i + 1].x - out.mean).detach()
    found = torch.autograd.grad(REWARD.score(x, ["a"] * 3).mean(), chain.parameters())
    torch.testing.assert_close(gradient(chain), torch.cat([g.flatten() for g in found]))
