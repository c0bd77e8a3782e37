"""The ODE: densities against closed forms, traces against Jacobians, mass on a grid, gradients, orders, batches."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion_cases import Mixture, path_case, path_of, with_gamma
from vaeflow.diffusion.ode import SOLVERS, derivatives, field, log_density, solve, trajectory, transport_cost
from vaeflow.diffusion.path import PATHS
from vaeflow.errors import UserError
from vaeflow.nets.convolve import convolve


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def wave(shape: tuple[int, ...], weight=None):
    """A smooth nonlinear field on events of this shape, all entries coupled."""
    n = int(np.prod(shape))
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(n, n)) / np.sqrt(n)) if weight is None else weight
    return lambda t, x: (jnp.sin(weight @ x.reshape(-1) + 2 * t) - 0.3 * x.reshape(-1)).reshape(shape)


def normal(x):
    return jnp.sum(jax.scipy.stats.norm.logpdf(x))


XS = np.array([[0.0, 0.0], [-1.0, 0.7], [1.5, -1.0], [0.4, 0.4]])


@pytest.mark.parametrize("name", [*PATHS, "with gamma"])
def test_log_density_is_that_of_the_mixture(name):
    case = path_case(name)
    path, mixture = with_gamma() if name == "with gamma" else path_of(name), Mixture()
    low, high = (jnp.asarray(t, float) for t in (case.low, case.high))

    def both(x):
        base = functools.partial(mixture.log_prob, path, high)
        return log_density(field(path, mixture.predict(path)), x, low, high, base, steps=100)[0], mixture.log_prob(path, low, x)

    got, want = jax.jit(jax.vmap(both))(XS)
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("shape", [(3,), (2, 2, 1)], ids=str)
def test_the_exact_trace_is_the_slogdet_of_the_solved_map(shape):
    f, x = wave(shape), jnp.asarray(np.random.default_rng(1).normal(size=shape))
    change, _ = log_density(f, x, 0.0, 1.0, lambda x: jnp.zeros(()), solver="rk4", steps=64)
    jacobian = jax.jacrev(lambda x: solve(f, x, 0.0, 1.0, solver="rk4", steps=64)[0])(x).reshape(x.size, x.size)
    np.testing.assert_allclose(change, np.linalg.slogdet(jacobian)[1], rtol=1e-7)


def test_hutchinsons_probe():
    """Above 64 dimensions, with a key: exact for a diagonal Jacobian, unbiased otherwise, one probe for the whole solve."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=65))
    ends = 0.0, 1.0, lambda x: jnp.zeros(())
    diagonal = lambda t, x: -jnp.arange(65) / 65 * x  # noqa: E731
    got, _ = log_density(diagonal, x, *ends, steps=2, key=jax.random.key(0))
    np.testing.assert_allclose(got, -32.0, rtol=1e-12)

    f = wave((65,))
    estimates = jax.jit(jax.vmap(lambda key: log_density(f, x, *ends, solver="euler", steps=4, key=key)[0]))
    got = estimates(jax.random.split(jax.random.key(1), 400))
    exact, _ = jax.jit(lambda: log_density(f, x, *ends, solver="euler", steps=4))()
    assert float(jnp.std(got)) > 0.1
    assert abs(jnp.mean(got) - exact) < 4 * jnp.std(got) / 20
    inside, _ = log_density(wave((3,)), x[:3], *ends, steps=2, key=jax.random.key(0))
    np.testing.assert_allclose(inside, log_density(wave((3,)), x[:3], *ends, steps=2)[0], rtol=1e-12)


def test_traces_of_convolutions():
    """They have derivatives by reverse mode only; all rows of a Jacobian, and 64 at a time of a larger one."""
    for shape in ((2, 2, 1), (9, 9, 1)):
        kernel, x = (jnp.asarray(np.random.default_rng(0).normal(size=s)) for s in ((3, 3, 1, 1), shape))

        def f(x, kernel=kernel):
            return convolve(jnp.tanh(x)[None], kernel, 1, ((1, 1), (1, 1)))[0]

        value, trace, norm = derivatives(f, x, None)
        jacobian = jax.jacrev(f)(x).reshape(x.size, x.size)
        np.testing.assert_allclose(value, f(x))
        np.testing.assert_allclose([trace, norm], [jnp.trace(jacobian), jnp.sum(jacobian**2)], rtol=1e-12)


def test_densities_integrate_to_1():
    """For any field, not only a perfect one."""
    f, axis = wave((2,)), jnp.linspace(-8, 8, 81)
    points = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    log_p = jax.jit(jax.vmap(lambda x: log_density(f, x, 0.0, 1.0, normal, solver="rk4", steps=24)[0]))(points)
    assert abs(jnp.sum(jnp.exp(log_p)) * (axis[1] - axis[0]) ** 2 - 1) < 1e-4


@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers_have_their_order_and_invert_to_it(solver):
    f, x, order = wave((2,)), jnp.array([0.3, -0.8]), SOLVERS[solver].order
    exact, _ = solve(f, x, 0.0, 1.0, steps=512)

    def errors(x):
        ends = [solve(f, x, 0.0, 1.0, solver=solver, steps=n)[0] for n in (8, 16)]
        back = [solve(f, end, 1.0, 0.0, solver=solver, steps=n)[0] for end, n in zip(ends, (8, 16), strict=True)]
        return [jnp.linalg.norm(end - exact) for end in ends], [jnp.linalg.norm(end - x) for end in back]

    for coarse, fine in jax.jit(errors)(x):
        assert np.log2(coarse / fine) > order - 0.35
    _, nfe = solve(f, x, 0.0, 1.0, solver=solver, steps=7)
    assert nfe == 7 * len(SOLVERS[solver].weights)


def test_adaptive_steps():
    f = wave((2,))
    exact, _ = jax.jit(jax.vmap(lambda x: solve(f, x, 0.0, 1.0, steps=512)))(XS)
    (end, nfe), (_, more) = (jax.jit(jax.vmap(lambda x, tol=tol: solve(f, x, 0.0, 1.0, tol=tol)))(XS) for tol in (1e-7, 1e-10))
    np.testing.assert_allclose(end, exact, atol=1e-6)
    assert jnp.all(more > nfe) and jnp.all(nfe % 6 <= 2) and nfe.shape == (4,)
    back, _ = solve(f, end[0], 1.0, 0.0, tol=1e-7)
    np.testing.assert_allclose(back, XS[0], atol=1e-6)


@pytest.mark.parametrize("how", [{"tol": 1e-6}, {"solver": "heun", "steps": 9}], ids=str)
def test_a_batch_of_1_is_a_batch_of_64(how):
    x = np.random.default_rng(0).normal(size=(64, 2)) * np.linspace(0.1, 5, 64)[:, None]
    run = jax.jit(jax.vmap(lambda x: log_density(wave((2,)), x, 0.0, 1.0, normal, **how)))
    (many, nfe), (one, own) = run(x), run(x[7:8])
    np.testing.assert_allclose(many[7], one[0], rtol=1e-12)
    assert nfe[7] == own[0]


@pytest.mark.parametrize("solver", SOLVERS)
def test_gradients_equal_finite_differences(solver):
    """Of a vmapped log density with respect to the field's parameters, in reverse and in forward mode."""
    weight, direction = np.random.default_rng(2).normal(size=(2, 2, 2))

    def loss(weight):
        return jnp.mean(jax.vmap(lambda x: log_density(wave((2,), weight), x, 0.0, 1.0, normal, solver=solver, steps=6)[0])(XS))

    @jax.jit
    def both(weight):
        return jnp.vdot(jax.grad(loss)(weight), direction), jax.jvp(loss, (weight,), (jnp.asarray(direction),))[1]

    reverse, forward = both(jnp.asarray(weight))
    step, value = 1e-5, jax.jit(loss)
    difference = (value(weight + step * direction) - value(weight - step * direction)) / (2 * step)
    np.testing.assert_allclose([reverse, forward], difference, rtol=1e-7)


def test_straightness_and_energy():
    line, x = (lambda t, x: jnp.array([2.0, -1.0])), jnp.zeros(2)
    assert abs(trajectory(line, x, 0.0, 1.0, steps=4).straightness) < 1e-14
    circle = lambda t, x: jnp.pi * jnp.array([-x[1], x[0]])  # noqa: E731  half a turn: |v|^2 = pi^2, |x_1 - x_0|^2 = 4
    for ends in ((0.0, 1.0), (1.0, 0.0)):
        found = trajectory(circle, jnp.array([1.0, 0.0]), *ends, solver="rk4", steps=32)
        np.testing.assert_allclose([found.straightness, found.energy], [jnp.pi**2 - 4, jnp.pi**2], rtol=1e-5)
        np.testing.assert_allclose(found.end, [-1, 0], atol=1e-5)
        assert found.nfe == 128
    quarter = trajectory(circle, jnp.array([1.0, 0.0]), 0.5, 0.0, solver="rk4", steps=32)  # |x_1 - x_0|^2 = 2 in half the time
    np.testing.assert_allclose(quarter.straightness, jnp.pi**2 / 2 - 4, rtol=1e-5)
    np.testing.assert_allclose(transport_cost(jnp.array([1.0, 0.0]), jnp.array([-1.0, 0.0])), 4.0)


def test_the_trajectories_of_a_gaussian_are_closed_forms():
    """x(t) = alpha m + sqrt(var_t / var_0) (x - m): the flow of N(m, s^2) under every path of Gaussians."""
    path, data = path_of("cosine"), Mixture((1.0,), ((0.5,),), (0.6,))
    low, high, x = jnp.array(0.02), jnp.array(0.98), jnp.array([1.3])
    (_, (start,), (before,)), (_, (end,), (after,)) = (data.at(path, t) for t in (low, high))
    got, _ = solve(field(path, data.predict(path)), x, low, high, steps=64)
    np.testing.assert_allclose(got, end + jnp.sqrt(after / before) * (x - start), rtol=1e-8)


def test_what_a_solve_refuses():
    f, x = wave((2,)), jnp.ones(2)
    for wrong in ({}, {"steps": 2, "tol": 1e-3}):
        with pytest.raises(UserError, match="requires one of the two"):
            solve(f, x, 0.0, 1.0, **wrong)
    with pytest.raises(UserError, match="solver='rk5' is unknown"):
        solve(f, x, 0.0, 1.0, solver="rk5", steps=2)
    with pytest.raises(UserError, match="known: dopri5"):
        solve(f, x, 0.0, 1.0, solver="heun", tol=1e-3)


def test_no_key_is_used_twice():
    with jax.debug_key_reuse(True):
        jax.jit(lambda key, x: log_density(lambda t, x: -x, x, 0.0, 1.0, normal, steps=2, key=key))(jax.random.key(0), jnp.ones(65))
