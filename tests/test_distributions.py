"""distributions.py: exact sums, means, tails, gradients; the dequantiser stays inside its cell."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import distributions

KEY = jax.random.key(0)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_discretized_logistic_is_a_distribution(levels):
    loc = jnp.array([-50.0, 0.0, 0.3, levels / 2, levels - 1.0, levels + 300.0])
    scale = jnp.array([0.1, 1e-3, 3.0, levels / 4, 20.0, 1.0])
    x = jnp.arange(levels, dtype=jnp.float32)[:, None]
    p = distributions.DiscretizedLogistic(loc, scale, levels)
    log_p = p.log_prob(x)
    assert np.isfinite(log_p).all()
    np.testing.assert_allclose(jnp.exp(log_p).sum(0), 1, atol=2e-5)
    np.testing.assert_allclose(p.mean(), (jnp.exp(log_p) * x).sum(0), atol=2e-5 * levels)


def test_discretized_logistic_matches_the_definition_where_it_is_stable():
    p = distributions.DiscretizedLogistic(jnp.array(3.2), jnp.array(1.7), 8)
    x = jnp.arange(8.0)
    upper = jnp.where(x == 7, 1.0, jax.nn.sigmoid((x + 0.5 - 3.2) / 1.7))
    lower = jnp.where(x == 0, 0.0, jax.nn.sigmoid((x - 0.5 - 3.2) / 1.7))
    np.testing.assert_allclose(p.log_prob(x), jnp.log(upper - lower), rtol=1e-5)


def test_discretized_logistic_gradients_are_finite_and_do_not_vanish_in_the_tails():
    def log_p(loc, log_scale, x):
        return distributions.DiscretizedLogistic(loc, jnp.exp(log_scale), 256).log_prob(x)

    grads = jax.vmap(jax.grad(log_p, (0, 1)))(jnp.array([-1e3, 1e3, 5.0]), jnp.array([-2.0, 0.0, 3.0]), jnp.array([200.0, 3.0, 0.0]))
    assert all(np.isfinite(g).all() and (np.abs(g) > 1e-3).all() for g in grads)


def test_samples_follow_the_pmf():
    for p in (
        distributions.DiscretizedLogistic(jnp.array(2.0), jnp.array(1.5), 5),
        distributions.GreyBernoulli(jnp.array(0.7), 4.0),
    ):
        draws = np.asarray(p.sample(seed=KEY, sample_shape=20_000))
        values, counts = np.unique(draws, return_counts=True)
        np.testing.assert_allclose(counts / counts.sum(), jnp.exp(p.log_prob(jnp.asarray(values))), atol=0.015)
        np.testing.assert_allclose(draws.mean(), p.mean(), atol=0.05)


def test_grey_bernoulli_is_bernoulli_at_the_ends_and_cross_entropy_between():
    logits = jnp.array([-200.0, -1.0, 0.0, 2.0, 200.0])
    p = distributions.GreyBernoulli(logits, 16.0)
    np.testing.assert_allclose(p.log_prob(jnp.full(5, 16, jnp.uint8)), jax.nn.log_sigmoid(logits), rtol=1e-6)
    np.testing.assert_allclose(p.log_prob(jnp.zeros(5, jnp.uint8)), jax.nn.log_sigmoid(-logits), rtol=1e-6)
    s = jax.nn.sigmoid(logits[1:4])
    cross = 0.25 * jnp.log(s) + 0.75 * jnp.log(1 - s)
    np.testing.assert_allclose(p.log_prob(jnp.full(5, 4.0))[1:4], cross, rtol=1e-5)
    assert np.isfinite(jax.vmap(jax.grad(lambda l: distributions.GreyBernoulli(l).log_prob(jnp.float32(0.3))))(logits)).all()


def test_gaussians_are_densities_of_the_data_as_loaded():
    """Change of variables: log p(x) = log N(x / t) - D log t."""
    x, out = jnp.arange(6.0).reshape(2, 3), jnp.linspace(-1, 1, 12).reshape(2, 2, 3)
    p = distributions.likelihood("gaussian", out[:, 0], 1, 16.0, 0.3)
    np.testing.assert_allclose(p.log_prob(x), distributions.normal(out[:, 0], jnp.array(0.3)).log_prob(x / 16) - 3 * np.log(16), rtol=1e-5)
    p = distributions.likelihood("gaussian_learned", jnp.zeros((2, 2, 3)), 1, 16.0, 0.3)
    np.testing.assert_allclose(p.stddev(), 16 * 0.301, rtol=1e-5)


@pytest.mark.parametrize("name", ["log_variance", "softplus", "bounded", "scaled_sigmoid"])
def test_standard_deviations_are_positive_and_increase(name):
    s = jnp.linspace(-12, 12, 50)
    std = distributions.std_of(name, s, 10.0)
    assert (std > 0).all() and (jnp.diff(std) > 0).all()
    assert name != "bounded" or std.max() < 10
    if name == "scaled_sigmoid":  # the VAE guide's: 10 sigmoid(s) + 1e-8 starts at 5
        np.testing.assert_allclose(std, 10 / (1 + np.exp(-np.asarray(s))) + 1e-8, rtol=1e-5)
        np.testing.assert_allclose(distributions.std_of(name, jnp.zeros(()), 10.0), 5.0, rtol=1e-6)


def test_dequantize_stays_inside_the_cell():
    x = jax.random.randint(KEY, (4, 50_000), 0, 256).astype(jnp.uint8)
    y, log_q = jax.jit(distributions.dequantize)(KEY, x)
    assert (jnp.floor(y) == x).all() and (y > x).all() and (y < x + 1.0).all()
    assert log_q.shape == (4,) and not log_q.any()
    np.testing.assert_allclose((y - x).mean(), 0.5, atol=0.005)
