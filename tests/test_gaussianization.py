"""Gaussianization flows: the fitted start on skewed data, degenerate batches, tails; Householder rotations against their definition."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.bijector_laws import quick_jit
from vaeflow.bijectors.core.layer import chain, repeat
from vaeflow.bijectors.gaussianize import gaussianize
from vaeflow.bijectors.householder import householder
from vaeflow.errors import UserError

KEY = jax.random.key(0)


def skewed(n: int = 500):
    """[n, 3]: a gamma, a log-normal that follows it, two modes."""
    draws = np.random.default_rng(0)
    a, b = draws.gamma(1.5, size=n), np.exp(0.7 * draws.normal(size=n))
    modes = np.where(draws.random(n) < 0.4, -2, 1) + 0.3 * draws.normal(size=n)
    return jnp.asarray(np.stack([a, b + 0.5 * a, modes], -1), jnp.float32)


def kernel_layer(kernel: Any = "logistic", start: Any = "data", components: int = 8):
    return gaussianize(components=components, kernel=kernel, cap=5.0, start=start)


def check_normal(z, ks: float):
    assert np.max(np.abs(np.mean(z, 0))) < 0.05 and np.max(np.abs(np.std(z, 0) - 1)) < 0.08
    assert max(stats.kstest(column, "norm").statistic for column in np.asarray(z).T) < ks


@pytest.mark.parametrize("kernel", ["logistic", "normal"])
def test_the_first_batch_starts_normal_in_every_dimension(kernel):
    layer, x = kernel_layer(kernel), skewed()

    @quick_jit
    def run(x):
        bijector = layer.bijector(layer.init(KEY, x))
        z, log_det = bijector.inverse_and_log_det(x)
        return z, log_det, bijector.forward(z)

    z, log_det, back = run(x)
    check_normal(z, 0.05)
    assert np.max(np.abs(back - x) / (1 + np.abs(x))) < 1e-5
    start = np.mean(np.sum(stats.norm.logpdf(z), -1) + log_det)
    whitened = np.mean(np.sum(stats.norm.logpdf(x, np.mean(x, 0), np.std(x, 0)), -1))
    assert start > whitened + 0.5  # nats: better than normals fitted to each dimension, before any training


@pytest.mark.parametrize("start", ["random", "pca"])
def test_a_gaussianization_flow_starts_fitted_layer_by_layer(start):
    layer = chain(repeat(chain(kernel_layer(), householder(reflections=4, start=start)), 5), kernel_layer())
    x = skewed()

    @quick_jit
    def run(x):
        return layer.bijector(layer.init(KEY, x)).inverse(x)

    check_normal(run(x), 0.05)


def test_batches_without_spread_and_images():
    layer = kernel_layer(components=3)
    ties = jnp.asarray([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    for x in (ties, ties[:1]):
        params = quick_jit(layer.init)(KEY, x)
        assert all(np.all(np.isfinite(a)) for a in params.values())
        constant = 5 * np.tanh(params["raw"][:, 0] / 5)
        np.testing.assert_allclose(constant, np.log(np.sqrt(3) / np.pi), atol=1e-6)  # unit variance
    images = jnp.ones((8, 3, 4, 3))
    z, log_det = jax.eval_shape(lambda x: layer.bijector(layer.init(KEY, images)).inverse_and_log_det(x), jnp.ones((2, 5, 3, 4, 3)))
    assert z.shape == (2, 5, 3, 4, 3) and log_det.shape == (2, 5)


@pytest.mark.parametrize("kernel", ["logistic", "normal"])
def test_the_start_without_data_is_near_the_identity(kernel):
    layer, x = kernel_layer(kernel, "normal", 5), jnp.linspace(-3, 3, 13)[:, None]
    z = quick_jit(lambda x: layer.bijector(layer.init(KEY, x)).inverse(x))(x)
    assert np.max(np.abs(z - x)) < 0.3


@pytest.mark.parametrize("kernel", ["logistic", "normal"])
def test_gradients_far_outside_the_data(kernel):
    layer, x = kernel_layer(kernel), skewed()
    far = jnp.asarray([[-1e3, 1e3, 1e3], [1e3, -1e3, 30.0]])

    def log_prob(params, x):
        z, log_det = layer.bijector(params).inverse_and_log_det(x)
        return jnp.sum(log_det - 0.5 * jnp.sum(z**2, -1))

    value, gradients = quick_jit(jax.value_and_grad(log_prob, argnums=(0, 1)))(quick_jit(layer.init)(KEY, x), far)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(a)) and np.any(a) for a in jax.tree.leaves(gradients))
    assert np.all(gradients[1] * np.sign(far) < 0)  # the density falls


def test_a_fitted_density_integrates_to_one():
    with jax.enable_x64(True):
        layer, x = kernel_layer(), skewed()[:, :1]
        grid = jnp.linspace(-30, 60, 20001)[:, None]
        z, log_det = quick_jit(lambda x: layer.bijector(layer.init(KEY, x)).inverse_and_log_det(grid))(x)
        mass = np.trapezoid(np.exp(stats.norm.logpdf(z[:, 0]) + log_det), grid[:, 0])
    assert abs(mass - 1) < 1e-6


@pytest.mark.parametrize("start", ["identity", "random", "pca"])
def test_reflections_are_their_product_and_orthogonal(start):
    d, n = 5, 4
    x = jnp.asarray(np.random.default_rng(1).normal(size=(50, d)) * np.arange(1, d + 1), jnp.float32)
    layer = householder(reflections=n, start=start)
    params = quick_jit(layer.init)(KEY, x)
    noisy = {**params, "vectors": params["vectors"] + 0.3 * jax.random.normal(jax.random.key(1), (n, d))}
    fixed = [params["fixed"]["vectors"]] if start == "pca" else []
    with jax.enable_x64(True):
        reflections = [np.eye(d) - 2 * np.outer(v, v) / np.dot(v, v) for v in np.concatenate([*fixed, noisy["vectors"]]).astype(np.float64)]
        want = functools.reduce(np.matmul, reflections)
        q, back = quick_jit(lambda p, x: (layer.bijector(p).inverse(x), layer.bijector(p).forward(x)))(noisy, jnp.eye(d, dtype=jnp.float64))
        np.testing.assert_allclose(q, want, atol=1e-13)
        np.testing.assert_allclose(back, want.T, atol=1e-13)
        np.testing.assert_allclose(q @ q.T, np.eye(d), atol=1e-13)
    z = quick_jit(lambda p, x: layer.bijector(p).inverse(x))(params, x)
    if start == "identity":
        np.testing.assert_allclose(z, x, atol=1e-5)
    if start == "pca":
        covariance = np.cov(z, rowvar=False)
        np.testing.assert_allclose(covariance, np.diag(np.linalg.eigvalsh(np.cov(x, rowvar=False))), atol=1e-3)


def test_pairs_need_an_even_number():
    with pytest.raises(UserError, match=r"reflections=3 is invalid with start='pca'.*even"):
        householder(reflections=3, start="pca")
