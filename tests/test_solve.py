"""Numerical inverses: solutions, and derivatives against finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow.bijectors.core.solve import bisect, newton, solve

D = 6


def triangular(params, x):
    """y_i = exp(s) x_i + sum_(j<i) w_ij tanh(x_j), far from a contraction."""
    y = jnp.exp(params["s"]) * x + jnp.tanh(x) @ jnp.tril(params["w"], -1).T
    return y, jnp.broadcast_to(params["s"], x.shape)


def elementwise(params, x):
    """y = sinh(a x) + x."""
    a = params["s"]
    return jnp.sinh(a * x) + x, jnp.log(a * jnp.cosh(a * x) + 1)


def solvers(f):
    if f is triangular:
        return newton(f, 0.0, D + 2)
    return bisect(f, lambda params, z: (-jnp.abs(z) - 1, jnp.abs(z) + 1), 0.0)


@pytest.mark.parametrize("f", [triangular, elementwise])
def test_solution_and_derivatives(f):
    with jax.enable_x64(True):
        draws = np.random.default_rng(0)
        params = {"s": jnp.asarray(draws.normal(size=D) ** 2), "w": jnp.asarray(5 * draws.normal(size=(D, D)))}
        z = jnp.asarray(3 * draws.normal(size=(4, D)))
        direction = jax.tree.map(lambda a: jnp.asarray(draws.normal(size=a.shape)), (params, z))

        @jax.jit
        def total(params, z):
            x, log_slope = solve(f, solvers(f), 0.0, D + 2, params, z)
            return jnp.sum(jnp.sin(x)) + jnp.sum(log_slope)

        @jax.jit
        def both(params, z):
            x, log_slope = solve(f, solvers(f), 0.0, D + 2, params, z)
            return f(params, x), log_slope

        (y, want), log_slope = both(params, z)
        np.testing.assert_allclose(y, z, atol=1e-12)
        np.testing.assert_allclose(log_slope, want)
        found = jax.grad(total, (0, 1))(params, z)
        _, along = jax.jvp(total, (params, z), direction)
        eps = 1e-5
        ahead, behind = (total(*jax.tree.map(lambda a, d, s=s: a + s * eps * d, (params, z), direction)) for s in (1, -1))
        want = (ahead - behind) / (2 * eps)
        back = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(direction), strict=True))
        np.testing.assert_allclose(np.array([along, back]), want, rtol=1e-7)


def test_float32_stops_at_its_own_precision():
    params, z = {"s": jnp.full(D, 0.7)}, jnp.linspace(-50, 50, D)[None]
    y, _ = elementwise(params, solve(elementwise, solvers(elementwise), 0.0, 4, params, z)[0])
    np.testing.assert_allclose(y, z, rtol=2e-5, atol=1e-5)


def test_vmap_is_the_batch():
    params, z = {"s": jnp.zeros(D), "w": jnp.ones((D, D))}, jnp.linspace(-1, 1, 3 * D).reshape(3, D)

    def run(z):
        return solve(triangular, solvers(triangular), 0.0, D + 2, params, z)[0]

    np.testing.assert_allclose(jax.vmap(run)(z), run(z), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(lambda z: run(z).sum()))(z), jax.grad(lambda z: run(z).sum())(z), rtol=1e-4, atol=1e-5)
