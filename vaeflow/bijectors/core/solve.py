"""Inverses without a formula, with the derivatives of the implicit function theorem.

A map y = f(params, x) that is increasing in every coordinate is inverted numerically; what comes back is differentiable as if there
were a formula, at the cost of a linear solve and without a trace of the iterations:

    J dx = dz - (df/dparams) dparams,        J = df/dx at the solution

f returns (y, log_slope) of x's shape: log_slope is log of the diagonal of J. Both iterations need nothing else of J:

    J triangular in some order (autoregressive, MintNet)    x <- x - (f(x) - z) / slope is exact after D steps, mostly after few
    J = I + contraction, log_slope = 0 (residual flows)     the same is Banach's iteration
    J diagonal (elementwise maps)                           `bisect`: Newton's steps kept inside a bracket

(Song et al. 2019, "MintNet", section 3.4; Behrmann et al. 2019, "i-ResNet", algorithm 1.) A tolerance is on the last step
relative to 1 + |x|, and never below 4 eps of the type.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vaeflow.model import Array

Function = Callable[[Any, Array], tuple[Array, Array]]
Solver = Callable[[Any, Array], Array]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2, 3))
def solve(f: Function, solver: Solver, tolerance: float, max_steps: int, params: Any, z: Array) -> tuple[Array, Array]:
    """(x, log_slope at x) with f(params, x)[0] = z, found by solver(params, z) -> x.

    Neither f nor solver may close over what is differentiated: it belongs into params (a tree of arrays). tolerance and
    max_steps are those of the linear solves in derivatives.
    """
    del tolerance, max_steps
    x = solver(params, z)
    return x, f(params, x)[1]


@solve.defjvp
def _solve_jvp(f, solver, tolerance, max_steps, primals, tangents):
    params, z = primals
    x, log_slope = solve(f, solver, tolerance, max_steps, params, z)
    _, moved = jax.jvp(lambda p: f(p, x)[0], (params,), (tangents[0],))
    slope = jnp.exp(log_slope)
    _, matvec = jax.linearize(lambda h: f(params, h)[0], x)

    def iterate(apply, b):
        return _iterate(lambda u: (b - apply(u)) / slope, b / slope, tolerance, max_steps, jnp.max(jnp.abs(b)))

    dx = jax.lax.custom_linear_solve(matvec, tangents[1] - moved, iterate, iterate)
    _, d_log_slope = jax.jvp(lambda p, h: f(p, h)[1], (params, x), (tangents[0], dx))
    return (x, log_slope), (dx, d_log_slope)


def newton(f: Function, tolerance: float, max_steps: int) -> Solver:
    """x <- x - (f(x) - z) / slope from x = z, until no entry moves by more than tolerance * (1 + |x|)."""

    def solver(params, z):
        def step(x):
            y, log_slope = f(params, x)
            return (z - y) * jnp.exp(-log_slope)

        return _iterate(step, z, tolerance, max_steps, None)

    return solver


def fixed_point(update: Callable[[Any, Array, Array], Array], tolerance: float, max_steps: int) -> Solver:
    """x <- update(params, x, z) from x = z, for maps that know a better step than Newton's with the diagonal of J."""
    return lambda params, z: _iterate(lambda x: update(params, x, z) - x, z, tolerance, max_steps, None)


def _iterate(step: Callable[[Array], Array], x: Array, tolerance: float, max_steps: int, scale: Array | None) -> Array:
    """x <- x + step(x) until |step| <= tolerance * scale everywhere (scale None: 1 + |x|), at most max_steps times."""
    limit = max(tolerance, 4 * float(jnp.finfo(x.dtype).eps))

    def more(carry):
        i, _, moving = carry
        return moving & (i < max_steps)

    def body(carry):
        i, x, _ = carry
        d = step(x)
        x = x + d
        return i + 1, x, jnp.any(jnp.abs(d) > limit * (1 + jnp.abs(x) if scale is None else scale))

    return jax.lax.while_loop(more, body, (0, x, jnp.array(True)))[1]


def bisect(f: Function, bracket: Callable[[Any, Array], tuple[Array, Array]], tolerance: float, max_steps: int = 100) -> Solver:
    """Newton's steps on an elementwise increasing f; one that leaves the bracket, or that does not halve it often enough, is
    replaced by the midpoint. bracket(params, z) -> (low, high) with f(low) <= z <= f(high)."""

    def solver(params, z):
        limit = max(tolerance, 4 * float(jnp.finfo(z.dtype).eps))
        low, high = bracket(params, z)

        def more(carry):
            i, *_, moving = carry
            return moving & (i < max_steps)

        def body(carry):
            i, low, high, x, _ = carry
            y, log_slope = f(params, x)
            low, high = jnp.where(y < z, x, low), jnp.where(y < z, high, x)
            newton = x + (z - y) * jnp.exp(-log_slope)
            inside = (newton > low) & (newton < high) & (i % 3 != 2)  # every third step halves: no creeping along a flat end
            new = jnp.where(y == z, x, jnp.where(inside, newton, 0.5 * (low + high)))
            small = limit * (1 + jnp.abs(new))
            return i + 1, low, high, new, jnp.any((jnp.abs(new - x) > small) & (high - low > small))

        return jax.lax.while_loop(more, body, (0, low, high, 0.5 * (low + high), jnp.array(True)))[3]

    return solver
