"""Mixture-CDF transformers: the density of a Gaussian mixture, precision far out, gaps, the start, implicit gradients."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_ndtr, logsumexp

from tests.bijector_laws import quick_jit
from vaeflow.bijectors.affine import affine
from vaeflow.bijectors.mixture import LOGISTIC, NORMAL, exchange, in_turn, mixture_cdf, normal_quantile, starting_means

CAP = 3.0
X = np.concatenate([np.linspace(-4, 4, 21), np.outer([30.0, 1e3], [-1, -0.7, 0.7, 1]).ravel()])
both_kernels = pytest.mark.parametrize("kernel", ["logistic", "normal"])


def theta_of(components: int, dtype: Any = np.float64):
    """theta [3 K, len(X)], the same numbers whatever the type."""
    return np.random.default_rng(3).normal(size=(3 * components, X.size)).astype(np.float32).astype(dtype)


def explicit(theta):
    """(weights, means, scales) [K, ...] of theta, by the definitions."""
    logits, means, raw = np.split(np.asarray(theta, np.float64), 3)
    start = np.array(starting_means(len(logits)))[:, None]
    return np.exp(logits - np.asarray(logsumexp(logits, axis=0))), means + start, np.exp(CAP * np.tanh(raw / CAP))


def test_with_a_normal_base_the_density_is_the_gaussian_mixture():
    with jax.enable_x64(True):
        theta, x = theta_of(4), jnp.asarray(X)
        z, log_slope = quick_jit(mixture_cdf(4, "normal", CAP).inverse)(theta, x)
        log_p = -0.5 * z**2 - 0.5 * np.log(2 * np.pi) + log_slope
    w, m, s = explicit(theta)
    want = np.asarray(logsumexp(np.log(w / s) - 0.5 * ((X - m) / s) ** 2 - 0.5 * np.log(2 * np.pi), axis=0))
    np.testing.assert_allclose(log_p[:21], want[:21], rtol=0, atol=1e-11)
    np.testing.assert_allclose(log_p, want, rtol=1e-13, atol=1e-11)  # down to -10^7 nats


def test_the_logistic_kernel_is_the_logit_of_the_mixture_of_sigmoids():
    with jax.enable_x64(True):
        z, log_slope = quick_jit(mixture_cdf(3, "logistic", CAP).inverse)(theta_of(3), jnp.asarray(X))
    w, m, s = explicit(theta_of(3))
    t = (X - m) / s
    u, density = np.sum(w * expit(t), 0)[:21], np.sum(w / s * expit(t) * expit(-t), 0)[:21]
    np.testing.assert_allclose(z[:21], np.log(u / (1 - u)), atol=1e-10)
    np.testing.assert_allclose(log_slope[:21], np.log(density / (u * (1 - u))), atol=1e-10)


@both_kernels
def test_float32_is_as_precise_far_out_as_near_zero(kernel):
    transformer = mixture_cdf(4, kernel, CAP)

    @quick_jit
    def run(theta, x):
        """Values, slopes, and the gradients of both in x and theta."""
        outputs, pull = jax.vjp(transformer.inverse, theta, x)
        return *outputs, *pull((jnp.ones_like(x), jnp.zeros_like(x))), *pull((jnp.zeros_like(x), jnp.ones_like(x)))

    single = run(theta_of(4, np.float32), jnp.asarray(X, jnp.float32))
    with jax.enable_x64(True):
        double = run(theta_of(4), jnp.asarray(X.astype(np.float32), jnp.float64))
        slope = double[3]  # of each z in its own x
        np.testing.assert_allclose(np.log(slope), double[1], atol=1e-12)
    assert {a.dtype for a in single} == {jnp.dtype(jnp.float32)}
    for a, b in zip(single[:2], double[:2], strict=True):
        assert np.max(np.abs(a - b) / (1 + np.abs(b))) < 2e-6
    for a, b in zip(single[2:], double[2:], strict=True):
        near = np.s_[..., np.abs(X) <= 4]
        assert np.max(np.abs(a - b)[near] / (1 + np.abs(b[near]))) < 2e-5
        # Far out the shares of components that compete are those of exp(-t^2 / 2) with t rounded, so only their order is sure.
        assert np.all(np.isfinite(a)) and np.all(a[np.abs(b) > 0.1] * b[np.abs(b) > 0.1] > 0)


def test_tails_and_quantile_of_the_normal():
    a = np.concatenate([[0.0], np.logspace(-9, 5, 400)])
    with jax.enable_x64(True):
        small, big, log_hazard = NORMAL.tails(jnp.asarray(a))
        np.testing.assert_allclose(small, log_ndtr(-a), rtol=2e-12)
        np.testing.assert_allclose(big, log_ndtr(a), rtol=2e-12, atol=1e-300)
        np.testing.assert_allclose(normal_quantile(small), a, rtol=1e-12, atol=1e-15)
        slope = jax.vmap(jax.grad(normal_quantile))(small)
        np.testing.assert_allclose(slope, -np.exp(-log_hazard), rtol=1e-12)
        there, log_slope = exchange(LOGISTIC, NORMAL, jnp.asarray([-700.0, -1e-3, 0.0, 2.0]))
        back, other = exchange(NORMAL, LOGISTIC, there)
        np.testing.assert_allclose(back, [-700, -1e-3, 0, 2], rtol=1e-12, atol=1e-300)
        np.testing.assert_allclose(log_slope, -other, atol=1e-12)


@both_kernels
def test_a_gap_without_mass_between_narrow_components(kernel):
    theta = jnp.asarray([0.0, 0.4, -1e3, 1e3, -9.0, -9.0])[:, None]
    x = jnp.asarray([-900.0, 0.0, 500.0])

    def loss(theta, x):
        z, log_slope = mixture_cdf(2, kernel, CAP).inverse(theta, x)
        return jnp.sum(z + log_slope), (z, log_slope)

    gradients, (z, log_slope) = quick_jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(theta, x)
    assert all(np.all(np.isfinite(a)) for a in (*gradients, z, log_slope))
    assert np.ptp(z) == 0 and np.all(log_slope < -1000)  # between them the cdf is flat


@both_kernels
def test_forward_differentiates_as_the_implicit_function(kernel):
    transformer = mixture_cdf(3, kernel, CAP)
    with jax.enable_x64(True):
        theta, x = theta_of(3)[:, :21], jnp.asarray(X[:21])

        @quick_jit
        def run(theta, x):
            z, pull_inverse, log_slope = jax.vjp(lambda theta: transformer.inverse(theta, x), theta, has_aux=True)
            back, pull = jax.vjp(lambda theta, z: transformer.forward(theta, z)[0], theta, z)
            return log_slope, back, *pull(jnp.ones_like(z)), *pull_inverse(jnp.ones_like(z))

        log_slope, back, by_theta, by_z, want = run(theta, x)
        np.testing.assert_allclose(back, x, atol=1e-12)
        np.testing.assert_allclose(by_z, np.exp(-log_slope), rtol=1e-10)
        np.testing.assert_allclose(by_theta, -want * np.exp(-log_slope), rtol=1e-9, atol=1e-12)


@both_kernels
def test_the_start_is_near_the_identity_and_tells_components_apart(kernel):
    x = jnp.asarray(X, jnp.float32)

    @functools.partial(quick_jit, static_argnums=0)
    def run(components, theta):
        return mixture_cdf(components, kernel, CAP).inverse(theta, x)

    z, log_slope = run(1, jnp.zeros((3, X.size)))
    assert np.max(np.abs(z - x) / (1 + np.abs(x))) < 1e-6 and np.max(np.abs(log_slope)) < 1e-5
    zeros = jnp.zeros((12, X.size))
    z, log_slope = run(4, zeros)
    assert np.max(np.abs(z - x)) < 1 + 1e-4 and np.max(log_slope) < 1e-5 and np.min(log_slope) > -0.5
    gradient = quick_jit(jax.grad(lambda theta: jnp.sum(mixture_cdf(4, kernel, CAP).inverse(theta, x)[1])))(zeros)
    apart = np.sum(gradient.reshape(3, 4, -1), axis=-1)
    assert np.min(np.abs(np.diff(apart[0]))) > 0 and np.min(np.abs(np.diff(apart[1]))) > 0


def test_two_transformers_in_turn():
    mixture, line = mixture_cdf(2, "logistic", CAP), affine(2.0)
    theta = theta_of(3, np.float32)[:8]
    z, log_det = in_turn(mixture, line).inverse(theta, jnp.asarray(X, jnp.float32))
    h, first = mixture.inverse(theta[:6], jnp.asarray(X, jnp.float32))
    want, second = line.inverse(theta[6:], h)
    np.testing.assert_allclose(z, want, rtol=1e-6)
    np.testing.assert_allclose(log_det, first + second, atol=1e-6)
