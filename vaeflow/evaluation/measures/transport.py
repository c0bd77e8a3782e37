"""The trajectories of a continuous-time model from its source to data: straightness, transport cost, kinetic energy.

    x(t) solves the probability-flow ODE dx/dt = v(t, x) from x(t1) at t_max to x(t0) at t_min, in the model's own coordinates
    straightness    E int |(x(t1) - x(t0)) / (t1 - t0) - v|^2 dt     0: straight lines at constant speed, one Euler step is exact
    transport_cost  E |x(t1) - x(t0)|^2                              of the coupling that the ODE makes; reflow does not raise it
    kinetic_energy  E int |v|^2 dt = straightness + transport_cost / (t1 - t0)

Squared norms are sums over all dimensions, not means. One trajectory per example of the split: it starts from noise or, for a `paired`
model, from the example's x0, under the example's context. Noise and dequantisation are keyed by the example. Standard errors are over
trajectories; they do not cover the error of the solver, nor that of the trained network.

Models are comparable in their own coordinates where these are the same: a reflow round has those of its teacher.

Reference: Liu et al. 2023, Flow Straight and Fast (arXiv 2209.03003), section 2.2.
"""

from __future__ import annotations

import zlib
from typing import Literal, NamedTuple

import jax

from vaeflow.build import Count
from vaeflow.diffusion.ode import SOLVERS, trajectory, transport_cost
from vaeflow.distributions import dequantize
from vaeflow.errors import UserError
from vaeflow.evaluation.map_split import gather, map_split
from vaeflow.evaluation.measures.measure import Evaluation, Finding, MeasureFn, mean
from vaeflow.model import Array, Batch, Params


class TransportSettings(NamedTuple):
    """Settings of the measure: the fixed-step solver, see vaeflow/diffusion/ode.py, and its number of steps."""

    solver: Literal["euler", "midpoint", "heun", "rk4"] = "rk4"
    steps: Count = 50


def needs(run: Evaluation, settings: TransportSettings) -> None:
    """UserError: the model is not one of continuous time."""
    del settings
    if run.model.dynamics is None:
        raise UserError(f"model.kind={run.config.model['kind']!r} has no ODE from a source to data")
    if run.model.paired and run.split.x0 is None:
        raise UserError("this model starts from x0, and the data have none")


def prepare(run: Evaluation, settings: TransportSettings) -> MeasureFn:
    """See the module's docstring."""
    model, dynamics = run.model, run.model.dynamics
    assert dynamics is not None
    salt = zlib.crc32(b"transport")

    def one(params: Params, key: Array, batch: Batch) -> dict[str, Array]:
        own = jax.random.fold_in(key, salt)
        if model.paired:
            y = dequantize(own, batch["x0"])[0] if model.levels else batch["x0"]
            start = dynamics.pull(params, y)[0][0]
        else:
            start = dynamics.spread(dynamics.t_max) * jax.random.normal(own, dynamics.shape)
        context = batch["context"][0] if "context" in batch else None
        field = dynamics.velocity(params, context)
        found = trajectory(field, start, dynamics.t_max, dynamics.t_min, solver=settings.solver, steps=settings.steps)
        cost = transport_cost(start, found.end)
        return {"straightness": found.straightness, "transport_cost": cost, "kinetic_energy": found.energy}

    mapped = map_split(one, run.split, run.key, draws=settings.steps, **run.options)

    def measure(params: Params, key: Array) -> dict[str, Finding]:
        each = gather(mapped(params, key))
        nfe = settings.steps * len(SOLVERS[settings.solver].nodes)
        how = f"{settings.steps} steps of {settings.solver}, {nfe} evaluations each, t from {dynamics.t_max:g} to {dynamics.t_min:g}"
        start = "x0 of the data" if model.paired else "noise"
        what = {
            "straightness": "E int |mean velocity - velocity|^2 dt, summed over dimensions",
            "transport_cost": "E |x(1) - x(0)|^2, summed over dimensions",
            "kinetic_energy": "E int |velocity|^2 dt, summed over dimensions",
        }
        return {name: mean(each[name], f"{text}; {len(each[name]):,} trajectories from {start}, {how}") for name, text in what.items()}

    return measure
