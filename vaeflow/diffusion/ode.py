"""The probability-flow ODE dx/dt = velocity(t, x): its solution, the log density along it, and how straight it is.

Everything is for one example; jax.vmap it. A field is (t [], x [*event]) -> [*event]. NFE: evaluations of the field per example.
Fixed steps are one lax.scan over rematerialised Runge-Kutta steps: forward and reverse mode, constant memory in the solver's stages.
Adaptive steps (tol) are diffrax's, per example even under vmap, for evaluation only: they have no jvp.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.diffusion.path import Predict, ProbabilityPath, velocity
from vaeflow.errors import UserError, unknown
from vaeflow.model import Array

Field = Callable[[Array, Array], Array]
SolverName = Literal["euler", "midpoint", "heun", "rk4", "dopri5"]

EXACT_TRACE = 64  # the largest dimension whose divergence is summed over all directions
_MAX_STEPS = 100_000


class Tableau(NamedTuple):
    """An explicit Runge-Kutta method: k_i = field(t + c_i h, x + h sum_j a_ij k_j), x + h sum_i b_i k_i."""

    order: int
    weights: tuple[float, ...]
    nodes: tuple[float, ...] = (0.0,)
    rows: tuple[tuple[float, ...], ...] = ((),)


SOLVERS: dict[str, Tableau] = {
    "euler": Tableau(1, (1.0,)),
    "midpoint": Tableau(2, (0.0, 1.0), (0.0, 0.5), ((), (0.5,))),
    "heun": Tableau(2, (0.5, 0.5), (0.0, 1.0), ((), (1.0,))),
    "rk4": Tableau(4, (1 / 6, 1 / 3, 1 / 3, 1 / 6), (0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0))),
    "dopri5": Tableau(  # the fifth-order weights; the seventh stage only estimates the error
        5,
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
        (
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        ),
    ),
}


def field(path: ProbabilityPath, predict: Predict) -> Field:
    """(t, x) -> alpha' E[x | x_t] + sigma' E[e | x_t] (+ gamma' E[z | x_t])."""
    return lambda t, x: velocity(path, t, predict(x, t))


def _advance(field, tableau: Tableau, t: Array, h: Array, x: Any) -> Any:
    """One step of an explicit Runge-Kutta method on a tree of arrays."""

    def moved(coefficients, slopes):
        used = [(c, k) for c, k in zip(coefficients, slopes, strict=True) if c]
        return jax.tree.map(lambda x, *ks: x + h * sum(c * k for (c, _), k in zip(used, ks, strict=True)), x, *(k for _, k in used))

    slopes: list[Any] = []
    for node, row in zip(tableau.nodes, tableau.rows, strict=True):
        slopes.append(field(t + node * h, moved(row, slopes)))
    return moved(tableau.weights, slopes)


def solve(
    field: Callable[[Array, Any], Any],
    x: Any,
    t0: Array | float,
    t1: Array | float,
    *,
    solver: str = "dopri5",
    steps: int | None = None,
    tol: float | None = None,
) -> tuple[Any, Array]:
    """x(t1) of dx/dt = field(t, x), x(t0) = x.

    Args:
        field: (t [], x [*event]) -> [*event].
        x: [*event] at t0, or a tree of arrays, such as x and what is integrated beside it. Sampling has t0 > t1.
        solver: euler, midpoint, heun, rk4 or dopri5 with fixed steps; dopri5 with a tolerance.
        steps, tol: one of them: a number of equal steps, or the relative and absolute tolerance of adaptive ones.

    Returns: (x(t1), as x, NFE []). x(t1) is NaN if the adaptive solver needs more than 100,000 steps.
    Raises: UserError for an unknown solver, for both or neither of steps and tol.
    Example: solve(lambda t, x: -x, jnp.ones(2), 0.0, 1.0, solver="rk4", steps=8)
    """
    if (steps is None) == (tol is None):
        raise UserError(f"steps={steps!r}, tol={tol!r}: a solve requires one of the two, a number of fixed steps or a tolerance")
    known = SOLVERS if tol is None else ["dopri5"]
    if solver not in known:
        raise unknown("solver", solver, known)
    t0, t1 = (jnp.asarray(t, jnp.result_type(float)) for t in (t0, t1))
    if steps is None:
        return _adaptive(field, x, t0, t1, tol or 0.0)
    tableau, h = SOLVERS[solver], (t1 - t0) / steps
    step = jax.checkpoint(lambda x, i: _advance(field, tableau, t0 + i * h, h, x), prevent_cse=False)
    x1, _ = jax.lax.scan(lambda x, i: (step(x, i), None), x, jnp.arange(steps))
    return x1, jnp.asarray(steps * len(tableau.nodes))


def _adaptive(field, x: Any, t0: Array, t1: Array, tol: float) -> tuple[Any, Array]:
    import diffrax  # here, as training does not need it

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, x, _: field(t, x)),
        diffrax.Dopri5(),
        t0,
        t1,
        dt0=None,
        y0=x,
        stepsize_controller=diffrax.PIDController(rtol=tol, atol=tol),
        max_steps=_MAX_STEPS,
        throw=False,
    )
    done = solution.result == diffrax.RESULTS.successful
    x1 = jax.tree.map(lambda ys: jnp.where(done, ys[-1], jnp.nan), solution.ys)
    return x1, 6 * solution.stats["num_steps"] + 1  # the last stage is the next step's first; a first step that is rejected adds 1


def derivatives(at: Callable[[Array], Array], x: Array, probe: Array | None) -> tuple[Array, Array, Array]:
    """(f, tr J, ||J||_F^2) of f = at(x), J = df/dx, both by all rows of J, or by the probe's e J (Hutchinson's estimates e J e, |e J|^2).

    By reverse mode: the networks' convolutions have no other.
    """
    slope, pull = jax.vjp(at, x)

    def products(direction):
        (row,) = pull(direction)
        return jnp.vdot(row, direction), jnp.sum(row**2)

    if probe is not None:
        return slope, *products(probe)
    directions = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
    if x.size > EXACT_TRACE:  # some at a time: all rows of an image's Jacobian would not fit into memory
        traces, norms = jax.lax.map(products, directions, batch_size=EXACT_TRACE)
    else:
        traces, norms = jax.vmap(products)(directions)
    return slope, jnp.sum(traces), jnp.sum(norms)


def log_density(
    field: Field,
    x: Array,
    t0: Array | float,
    t1: Array | float,
    base: Callable[[Array], Array],
    *,
    solver: str = "dopri5",
    steps: int | None = None,
    tol: float | None = None,
    key: Array | None = None,
    exact: int = EXACT_TRACE,
) -> tuple[Array, Array]:
    """log p_t0(x) = log p_t1(x(t1)) + int_t0^t1 div field(t, x(t)) dt: the density at t0, which is not that of the data if t0 > 0.

    Args:
        field, solver, steps, tol: as in `solve`.
        x: [*event] at t0.
        base: log p_t1, [*event] -> [] nats.
        key: of the Rademacher probe e of Hutchinson's estimate e . J e, one for the whole solve. The trace is exact if key is None or the
            event has at most `exact` dimensions.
        exact: the largest dimension whose trace is exact although there is a key.

    Returns: (nats [], NFE []). With a probe, nats is unbiased for fixed steps: never average exp of it.
    References: Chen et al. 2018 (arXiv 1806.07366); Grathwohl et al. 2019 (1810.01367).
    """
    probe = None if key is None or x.size <= exact else jax.random.rademacher(key, x.shape, x.dtype)
    start = (x, jnp.zeros((), x.dtype))

    def both(t, y):
        return derivatives(lambda x: field(t, x), y[0], probe)[:2]

    (end, change), nfe = solve(both, start, t0, t1, solver=solver, steps=steps, tol=tol)
    return base(end) + change, nfe


class Trajectory(NamedTuple):
    """What `trajectory` finds of the solution from x(t0) to x(t1), T = |t1 - t0|.

    end           x(t1) [*event]
    energy        int |field|^2 dt [], over the interval between t0 and t1: its kinetic energy
    straightness  int |(x(t1) - x(t0)) / (t1 - t0) - field|^2 dt = energy - |x(t1) - x(t0)|^2 / T []
    nfe           evaluations of the field []
    """

    end: Array
    energy: Array
    straightness: Array
    nfe: Array


def trajectory(
    field: Field,
    x: Array,
    t0: Array | float,
    t1: Array | float,
    *,
    solver: str = "dopri5",
    steps: int | None = None,
    tol: float | None = None,
) -> Trajectory:
    """The ODE's solution from x [*event] with its kinetic energy and straightness, by one solve.

    The straightness is 0 if the solution is a straight line at constant speed, so that one Euler step is exact (Liu et al. 2023, arXiv
    2209.03003). With fixed steps and weights that are not negative (euler to rk4) it is at least 0 but for rounding: the variance of the
    slopes under the solver's own weights. Squared norms are sums over all entries.
    """

    def both(t, y):
        slope = field(t, y[0])
        return slope, jnp.sum(slope**2)

    (end, total), nfe = solve(both, (x, jnp.zeros((), x.dtype)), t0, t1, solver=solver, steps=steps, tol=tol)
    length = jnp.asarray(t1 - t0, total.dtype)
    energy = total * jnp.sign(length)
    return Trajectory(end, energy, energy - transport_cost(x, end) / jnp.abs(length), nfe)


def transport_cost(x0: Array, x1: Array) -> Array:
    """|x(1) - x(0)|^2 [] of one trajectory's ends [*event]; its mean is what reflow must not raise."""
    return jnp.sum((x1 - x0) ** 2)
