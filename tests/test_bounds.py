"""objectives/bounds.py and multi_sample.py against a linear-Gaussian model: the bounds' values, what each estimator's gradient is the mean
of, and which ones vanish draw by draw at the exact posterior."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import quick
from vaeflow import objectives as o

# z ~ N(0, 1), x|z ~ N(theta z, 1): p(x) = N(0, 1 + theta^2), p(z|x) = N(theta x / (1 + theta^2), 1 / (1 + theta^2)); q = N(m, e^l).
X, THETA = 1.3, 0.8
EXACT = {"m": THETA * X / (1 + THETA**2), "l": -0.5 * np.log(1 + THETA**2), "theta": THETA}
OFF = {"m": EXACT["m"] + 0.3, "l": EXACT["l"] + 0.25, "theta": THETA}
K, RUNS = 4, 40_000


def normal(x, mean, log_std):
    return jax.scipy.stats.norm.logpdf(x, mean, jnp.exp(log_std))


def drawn(z, log_x, log_z, log_q, log_q_path):
    """Draws z [k, B, ...] with these densities and nothing else."""
    return o.Draws(z, log_q, log_x, log_z, log_q_path, None, 1, None, lambda key: z[0], z[0])


def value(params, key, name, k=K):
    """The bound of one example at draws of q."""
    noise, pick = jax.random.split(key)
    fixed = jax.lax.stop_gradient(params)
    z = params["m"] + jnp.exp(params["l"]) * jax.random.normal(noise, (k, 1))
    draws = drawn(
        z,
        lambda z: normal(X, params["theta"] * z, 0.0),
        lambda z: normal(z, 0.0, 0.0),
        normal(z, params["m"], params["l"]),
        lambda z: normal(z, fixed["m"], fixed["l"]),
    )
    return -o.OBJECTIVES[name](k=k).loss({}, pick, draws, 0)[0]


@functools.cache
def gradients(name, exact=False):
    """[RUNS] of the value and of each parameter's gradient."""
    params = {name: jnp.asarray(a, jnp.float32) for name, a in (EXACT if exact else OFF).items()}
    keys = jax.random.split(jax.random.key(1), 50 if exact else RUNS)
    found = quick(jax.vmap(jax.value_and_grad(functools.partial(value, name=name)), (None, 0)))(params, keys)
    return {"value": np.asarray(found[0])} | {k: np.asarray(v) for k, v in found[1].items()}


def agree(a, b):
    """Two means of draws, or a mean and a number, within four standard errors."""
    b = np.atleast_1d(b)
    error = np.hypot(a.std() / len(a) ** 0.5, b.std() / len(b) ** 0.5)
    assert abs(a.mean() - b.mean()) < 4 * error + 1e-6, (a.mean(), b.mean(), error)


def elbo_of(params):
    """E_q log p(x, z) - log q(z) in closed form."""
    square = params["m"] ** 2 + jnp.exp(2 * params["l"])  # E z^2
    log_joint = -jnp.log(2 * jnp.pi) - 0.5 * square - 0.5 * (X**2 - 2 * X * params["theta"] * params["m"] + params["theta"] ** 2 * square)
    return log_joint + 0.5 * jnp.log(2 * jnp.pi) + 0.5 + params["l"]


def test_the_elbo_and_both_its_gradients_are_those_of_the_closed_form():
    expected, slope = jax.value_and_grad(elbo_of)({k: jnp.asarray(v) for k, v in OFF.items()})
    for name in ("elbo", "elbo_path"):
        found = gradients(name)
        agree(found["value"], expected)
        for leaf in OFF:
            agree(found[leaf], slope[leaf])


@pytest.mark.parametrize("name", ["iwae_one", "dreg"])
def test_unbiased_estimators_of_the_iwae_gradient_have_its_mean(name):
    for leaf in ("value", "m", "l", "theta"):
        agree(gradients(name)[leaf], gradients("iwae")[leaf])
    assert gradients("iwae_one")["m"].std() > gradients("iwae")["m"].std() > 1.3 * gradients("dreg")["m"].std()


def test_the_path_estimator_of_the_iwae_is_biased_for_q_and_not_for_p():
    ours, theirs = gradients("iwae_path"), gradients("iwae")
    agree(ours["theta"], theirs["theta"])
    difference = ours["l"].mean() - theirs["l"].mean()
    assert abs(difference) > 10 * np.hypot(ours["l"].std(), theirs["l"].std()) / RUNS**0.5


def test_path_derivatives_vanish_draw_by_draw_at_the_exact_posterior():
    for name in ("elbo", "elbo_path", "iwae", "iwae_one", "iwae_path", "dreg"):
        found = gradients(name, exact=True)
        np.testing.assert_allclose(found["value"], normal(X, 0.0, 0.5 * np.log(1 + THETA**2)), rtol=1e-5)
        size = max(np.abs(found["m"]).max(), np.abs(found["l"]).max())
        assert size < 1e-5 if o.OBJECTIVES[name]().path else size > 0.1, name


def test_doubly_reparameterised_gradients_cost_one_backward_pass():
    w = jax.random.normal(jax.random.key(0), (64, 64))

    def flops(name):
        def total(w):
            z = jnp.ones((8, 16, 64)) @ w

            def network(z):
                return jnp.sum(jnp.tanh(jnp.tanh(z @ w) @ w) ** 2, -1)

            draws = drawn(z, network, lambda z: jnp.zeros((8, 16)), jnp.zeros((8, 16)), lambda z: 0.1 * jnp.sum(z, -1))
            return o.OBJECTIVES[name](k=8).loss({}, jax.random.key(0), draws, 0)[0]

        return jax.jit(jax.grad(total)).lower(w).compile().cost_analysis()["flops"]  # type: ignore[index]

    assert flops("dreg") < 1.15 * flops("iwae")


def test_bounds_are_ordered_and_exact_for_constant_weights():
    log_w = 3 * jax.random.normal(jax.random.key(0), (4096, 64)) - 4.5  # log E[w] = 0
    means = [float(o.iwae(log_w.reshape(k, -1)).mean()) for k in (1, 4, 64, 4096)]
    assert float(o.elbo(log_w).mean()) == pytest.approx(means[0], abs=1e-3)
    assert means == sorted(means) and means[-1] < 0.5
    np.testing.assert_allclose(o.iwae(jnp.full((7, 2), -500.0)), -500, rtol=1e-6)
    np.testing.assert_allclose(o.elbo(jnp.full((7, 2), -500.0)), -500, rtol=1e-6)


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.5, 2.0])
def test_renyi_of_log_normal_weights(alpha):
    """log w ~ N(m, s^2): 1/(1 - a) log E w^(1 - a) = m + (1 - a) s^2 / 2; the elbo at a = 1, log E w at a = 0."""
    log_w = -2.0 + 0.5 * jax.random.normal(jax.random.key(0), (200_000, 4))
    np.testing.assert_allclose(o.renyi(log_w, alpha), -2.0 + (1 - alpha) * 0.125, atol=0.01)
    np.testing.assert_allclose(o.renyi(log_w, 0.999), o.elbo(log_w), atol=1e-2)
    assert np.array_equal(o.renyi(log_w, 0.0), o.iwae(log_w))
