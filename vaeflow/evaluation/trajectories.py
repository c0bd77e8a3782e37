"""Ways along the probability-flow ODE of a continuous-time model (`Model.dynamics`): between the data and the source, and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.diffusion.ode import Field, solve
from vaeflow.diffusion.times import invert
from vaeflow.model import Array, Dynamics, Model, Params

# Runge-Kutta steps of a whole way between data and source: 128 evaluations.
_STEPS = 32


class Trajectories(NamedTuple):
    """t [T]; x [T, n, *shape], the states at t; data [T, n, *shape], the data predicted there, or None."""

    t: np.ndarray
    x: np.ndarray
    data: np.ndarray | None


def visited(dynamics: Dynamics, count: int) -> Array:
    """Times [count] from t_min to t_max at equal steps of the angle arcsin(sigma / spread), which rises from about 0 to about pi / 2: equal
    steps of t would pass the data of a path like edm, whose sigma is 80 at t = 1, in the first one."""

    def angle(t):
        return jnp.arcsin(jnp.minimum(dynamics.path.sigma(t) / dynamics.spread(t), 1.0))

    ends = jnp.asarray([dynamics.t_min, dynamics.t_max])
    first, last = angle(ends)
    inner = invert(angle, first + (last - first) * jnp.arange(1, count - 1) / (count - 1), *ends)
    return jnp.concatenate([ends[:1], inner, ends[1:]])


def follow(field: Field, x: Array, times: Array) -> Array:
    """The states [T, *shape] at the times [T] of the solution that is at x [*shape] at the first one, by one step of rk4 between two."""

    def move(x, ends):
        end, _ = solve(field, x, ends[0], ends[1], solver="rk4", steps=1)
        return end, end

    return jnp.concatenate([x[None], jax.lax.scan(move, x, (times[:-1], times[1:]))[1]])


def source(model: Model, params: Params, key: Array, n: int, x0: Any = None) -> Array:
    """n starts [n, *shape] of the ODE at t_max: noise, or the x0 [n, *event0] of a `paired` model (of grey values the cells' middles)."""
    dynamics = _dynamics(model)
    if model.paired:
        return _coordinates(model, params, x0)
    return dynamics.spread(dynamics.t_max) * jax.random.normal(key, (n, *dynamics.shape))


def generate(model: Model, params: Params, x: Array, context: np.ndarray | None, count: int) -> Trajectories:
    """From the source x [n, *shape] to the data, at `count` times; context [n, C]."""
    dynamics = _dynamics(model)
    each = -(-_STEPS // (count - 1))
    every = visited(dynamics, (count - 1) * each + 1)[::-1]
    times = every[::each]

    def one(params, x, c):
        states = follow(dynamics.velocity(params, c), x, every)[::each]
        if dynamics.predictor is None:
            return states, None
        return states, jax.vmap(lambda x, t: dynamics.predictor(params, c)(x, t).data)(states, times)  # type: ignore[misc]

    states, data = jax.jit(jax.vmap(one, (None, 0, 0), 1))(params, x, context)
    return Trajectories(np.asarray(times), np.asarray(states), None if data is None else np.asarray(data))


def encode(model: Model, params: Params, x: np.ndarray, context: np.ndarray | None) -> np.ndarray:
    """The source z [n, *shape] of examples x [n, *event] (of grey values the middles of their cells)."""
    dynamics = _dynamics(model)
    times = visited(dynamics, _STEPS + 1)

    def one(params, x, c):
        return follow(dynamics.velocity(params, c), x, times)[-1]

    return np.asarray(jax.jit(jax.vmap(one, (None, 0, 0)))(params, _coordinates(model, params, x), context))


def decode(model: Model, params: Params, z: np.ndarray, context: np.ndarray | None) -> np.ndarray:
    """x [n, *event] as `Model.sample` gives it, of the source z [n, *shape]: `encode` backwards."""
    dynamics = _dynamics(model)
    times = visited(dynamics, _STEPS + 1)[::-1]

    @jax.jit
    def run(params, z, context):
        def one(z, c):
            return follow(dynamics.velocity(params, c), z, times)[-1]

        return dynamics.push(params, jax.vmap(one)(z, context))

    return np.asarray(run(params, jnp.asarray(z), context))


def _coordinates(model: Model, params: Params, x: Any) -> Array:
    """x [n, *shape] in the ODE's coordinates."""
    return _dynamics(model).pull(params, jnp.asarray(x, jnp.result_type(float)) + (0.5 if model.levels else 0))[0]


def _dynamics(model: Model) -> Dynamics:
    assert model.dynamics is not None
    return model.dynamics
