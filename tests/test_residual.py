"""Residual blocks beyond the laws: the estimators of the log-determinant, the bound of the network, hard blocks' inverses."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.bijector_laws import quick_jit
from vaeflow.bijectors.core.layer import Layer, repeat
from vaeflow.bijectors.residual import log_det_positive, residual
from vaeflow.errors import UserError
from vaeflow.nets import lipschitz

D, DRAWS = 3, 8000


def small(log_det: str, **changes: Any) -> Layer:
    """A residual layer."""
    options: dict[str, Any] = dict(hidden=(16,), lip=0.9, terms=2, roulette=0.85, log_det=log_det)
    return residual(**(options | changes))


def block(log_det: str, **changes):
    """(layer, params, x [4, D]): dg/dx is about -W W^T, its eigenvalues are near the bound, so that late terms count."""
    layer = small(log_det, **changes)
    params = jax.tree.map(lambda a: 3 * a, layer.init(jax.random.key(0), jnp.zeros((4, D))))
    params["dense_0"]["bias"] += 1
    params["dense_1"]["kernel"] = -params["dense_0"]["kernel"].T
    return layer, params, jax.random.normal(jax.random.key(1), (4, D))


def test_mean_of_the_unbiased_estimator_and_of_its_gradient():
    # Value and gradient against the exact ones in standard errors; a series that stops after the same terms must fail the same check.
    def deviation(log_det):
        layer, params, x = block(log_det)

        def total(params, x, key):
            return jnp.sum(layer.bijector(params, key=key, train=True).inverse_and_log_det(x)[1])

        @jax.jit
        def all_draws(params, x):
            draw = jax.vmap(jax.value_and_grad(total, (0, 1)), (None, None, 0))
            return draw(params, x, jax.random.split(jax.random.key(2), DRAWS)), jax.value_and_grad(total, (0, 1))(params, x, None)

        errors = []
        for a, b in zip(*map(jax.tree.leaves, all_draws(params, x)), strict=True):
            a = np.asarray(a, np.float64)
            errors.append(np.max(np.abs(a.mean(0) - b) / (a.std(0) / DRAWS**0.5 + 1e-5)))
        return errors

    unbiased, series = deviation("unbiased"), deviation("series")
    assert max(unbiased) < 4.5, unbiased  # the largest of about 170 normal numbers
    assert series[0] > 50 and max(series[1:]) > 50, series  # value and gradient


def test_series_is_within_its_bound_and_evaluation_is_exact():
    terms = 12
    layer, params, x = block("series", terms=terms)

    @quick_jit
    def run(params, x):
        keys = jax.random.split(jax.random.key(3), 4000)
        drawn = jax.vmap(lambda key: layer.bijector(params, key=key, train=True).inverse_and_log_det(x)[1])(keys)
        exact = layer.bijector(params, key=keys[0]).inverse_and_log_det(x)
        dense = jax.vmap(jax.jacrev(lambda h: layer.bijector(params).inverse(h)))(x)
        return drawn, exact, dense

    drawn, (_, exact), dense = run(params, x)
    np.testing.assert_allclose(exact, np.linalg.slogdet(np.asarray(dense))[1], atol=1e-5)
    bias = np.abs(np.mean(drawn, 0) - exact)
    assert np.all(bias < D * 0.9 ** (terms + 1) / ((terms + 1) * 0.1) + 4 * np.std(drawn, 0) / 4000**0.5)


def test_elimination():
    draws = np.random.default_rng(0)
    for d in (1, 2, 7):
        a = draws.normal(size=(5, d, d))
        a = np.eye(d) + 0.97 * a / np.linalg.norm(a, 2, axis=(1, 2), keepdims=True)
        with jax.enable_x64(True):
            value, gradient = quick_jit(jax.vmap(jax.value_and_grad(log_det_positive)))(jnp.asarray(a))
        np.testing.assert_allclose(value, np.linalg.slogdet(a)[1], atol=1e-12)
        np.testing.assert_allclose(gradient, np.linalg.inv(a).swapaxes(1, 2), atol=1e-11)


@pytest.mark.parametrize("shape", [(2, 64), (64, 64), (64, 1)])
def test_spectral_bound_is_above_and_close(shape):
    # The second: a matrix of equal singular values, the worst case of a Schatten norm.
    draws = np.random.default_rng(0)
    flat = np.linalg.qr(draws.normal(size=shape))[0] if shape[0] >= shape[1] else np.eye(*shape)
    for kernel in (draws.normal(size=shape), flat, 1e-3 * flat, 1e3 * flat):
        found = float(quick_jit(lipschitz.spectral_bound)(jnp.asarray(kernel, jnp.float32)))
        exact = np.linalg.norm(kernel, 2)
        assert exact * (1 - 1e-5) <= found <= exact * min(shape) ** (1 / 512) * (1 + 1e-5)
    assert np.all(np.isfinite(quick_jit(jax.grad(lipschitz.spectral_bound))(jnp.zeros(shape))))


def test_any_parameters_give_an_invertible_stack():
    # Kernels 30 times their start, where a vector left over from the start would tell nothing of the norm.
    layer = repeat(small("exact", hidden=(16, 16), lip=0.95), 4)
    z = 3 * jax.random.normal(jax.random.key(1), (6, D))

    @quick_jit
    def there_and_back(key):
        start = layer.init(key, z)
        params = jax.tree.map(lambda a: 30 * a + jax.random.normal(key, a.shape, a.dtype), start)
        x, log_det = layer.bijector(params).forward_and_log_det(z)
        return layer.bijector(params).inverse_and_log_det(x), log_det

    (found, back), log_det = there_and_back(jax.random.key(0))
    np.testing.assert_allclose(found, z, atol=2e-4)
    np.testing.assert_allclose(back, -log_det, atol=2e-3)


def test_no_images():
    with pytest.raises(UserError, match=r"vectors \[D\]; here they have the shape \(4, 4, 1\)"):
        jax.eval_shape(small("exact").init, jax.random.key(0), jnp.zeros((2, 4, 4, 1)))
