"""objectives/regularisers.py against closed forms of Gaussians."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import objectives as o

KEY = jax.random.key(0)


def test_free_bits():
    kl = jnp.array([0.1, 0.5, -0.01, 3.0])
    assert float(o.free_bits(kl, 0.5)) == pytest.approx(4.5)
    np.testing.assert_array_equal(jax.grad(o.free_bits)(kl, 0.4), [0, 1, 0, 1])
    assert float(o.free_bits(kl, 0.0)) == pytest.approx(3.59)
    np.testing.assert_array_equal(jax.grad(o.free_bits)(kl, 0.0), [1, 1, 1, 1])


def test_capacity_pulls_the_kl_from_both_sides():
    for kl, slope in ((3.0, -1.0), (7.0, 1.0)):
        assert o.capacity(jnp.asarray(kl), 5.0) == 2.0
        assert jax.grad(o.capacity)(kl, 5.0) == slope


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_kl_decomposes_into_information_correlation_and_the_dimensions(correlation):
    """q(z|x) = N(x, s^2 I), x ~ N(0, C): q(z) = N(0, C + s^2 I), whose information, total correlation and marginals are known."""
    n, d, s = 3000, 2, 0.5
    cov = np.array([[1.0, correlation], [correlation, 1.0]])
    mean = jnp.asarray(np.random.default_rng(0).multivariate_normal(np.zeros(d), cov, n), jnp.float32)
    z = mean + s * jax.random.normal(KEY, (n, d))
    found = jax.jit(o.decomposition)(z, mean, jnp.full((n, d), s), jax.scipy.stats.norm.logpdf(z))
    whole = cov + s**2 * np.eye(d)
    log_det, variance = np.linalg.slogdet(whole)[1], whole[0, 0]
    assert found.mutual_information == pytest.approx(0.5 * (log_det - d * np.log(s**2)), abs=0.06)
    assert found.total_correlation == pytest.approx(0.5 * (d * np.log(variance) - log_det), abs=0.04)
    assert found.dimension_kl == pytest.approx(d * 0.5 * (variance - 1 - np.log(variance)), abs=0.06)
    log_q = jax.scipy.stats.norm.logpdf(z, mean, s).sum(-1)
    exact = (log_q - jax.scipy.stats.norm.logpdf(z).sum(-1)).mean()  # the same draws: the three terms telescope
    assert sum(found) == pytest.approx(float(exact), abs=1e-4)


def test_information_of_a_batch_is_at_most_the_logarithm_of_its_size():
    mean = 100.0 * jnp.arange(16.0)[:, None]
    found = o.decomposition(mean, mean, jnp.ones((16, 1)), jnp.zeros((16, 1)))
    assert found.mutual_information == pytest.approx(np.log(16), rel=1e-6)


def test_mmd_of_two_gaussians():
    """E k(u, v) = (D / (D + 2))^(D/2) exp(-|m|^2 / (2 (D + 2))) for u - v ~ N(m, 2 I) and this kernel."""
    n, d, shift = 2000, 3, 1.0
    a, b = jax.random.normal(KEY, (n, d)) + shift, jax.random.normal(jax.random.key(1), (n, d))
    same = (d / (d + 2)) ** (d / 2)
    expected = 2 * same * (1 - np.exp(-d * shift**2 / (2 * (d + 2))))
    assert o.mmd(a, b) == pytest.approx(expected, rel=0.1)
    null = jax.vmap(lambda key: o.mmd(*jax.random.normal(key, (2, 50, d))))(jax.random.split(KEY, 400))
    assert abs(null.mean()) < 4 * null.std() / 20 and (null < 0).any()  # unbiased: its mean is zero, so it is negative at times


def test_the_critic_is_best_at_the_log_density_ratio():
    p, q = jax.random.normal(KEY, (20_000,)), 0.7 * jax.random.normal(jax.random.key(1), (20_000,)) + 0.5

    def ratio(z):
        return jax.scipy.stats.norm.logpdf(z) - jax.scipy.stats.norm.logpdf(z, 0.5, 0.7)

    def loss(change):
        return o.critic_loss(*(change[0] + change[1] * ratio(z) + change[2] * z for z in (p, q)))

    best = jnp.array([0.0, 1.0, 0.0])
    assert np.abs(jax.grad(loss)(best)).max() < 0.02
    assert all(loss(best + step) > loss(best) for step in 0.3 * jnp.concatenate([jnp.eye(3), -jnp.eye(3)]))
    assert o.fooling_loss(jnp.zeros(5)) == pytest.approx(np.log(2))
    assert jax.grad(o.fooling_loss)(jnp.zeros(1))[0] < 0  # it wants to be taken for the prior
