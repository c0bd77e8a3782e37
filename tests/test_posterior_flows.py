"""Planar, radial and Sylvester flows beyond the laws: extreme parameters, the constraints, amortisation, singular points."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.bijector_laws import quick_jit
from vaeflow.bijectors import BIJECTORS
from vaeflow.bijectors.amortised import MIN_SLOPE
from vaeflow.bijectors.core.layer import repeat
from vaeflow.bijectors.planar import planar
from vaeflow.bijectors.radial import radial
from vaeflow.bijectors.sylvester import sylvester
from vaeflow.errors import UserError

D = 4
LAYERS = {
    "planar": planar(),
    "radial": radial(),
    "orthogonal": sylvester(columns=2, reflections=2),
    "householder": sylvester(columns=D, reflections=6),
    "triangular": sylvester(columns=D, reflections=0),
}


@pytest.mark.parametrize("name", LAYERS)
def test_any_parameters_are_invertible(name):
    # Among 300 examples' parameters at ten times the usual size many are at their constraint.
    layer = LAYERS[name]
    with jax.enable_x64(True):
        draws = np.random.default_rng(0)
        z, context = (jnp.asarray(draws.normal(size=(300, n))) for n in (D, 60))
        params = quick_jit(layer.init)(jax.random.key(0), z, context)
        params["context"] = jnp.asarray(10 / 60**0.5 * draws.normal(size=params["context"].shape))

        @quick_jit
        def run(params, z, context):
            bijector = layer.bijector(params, context=context)
            x, log_det = bijector.forward_and_log_det(z)
            return *bijector.inverse_and_log_det(x), log_det

        found, back, log_det = run(params, z, context)
        np.testing.assert_allclose(found, z, atol=1e-7)
        np.testing.assert_allclose(back, -log_det, atol=1e-6)
        assert np.min(log_det) > D * np.log(MIN_SLOPE) and np.min(log_det) < np.log(0.7) < np.log(1.3) < np.max(log_det)


@pytest.mark.parametrize("name", ["radial", "householder"])
def test_every_example_has_parameters_of_its_own(name):
    layer = repeat(LAYERS[name], 3)
    z, context = jax.random.normal(jax.random.key(1), (3, D)), jax.random.normal(jax.random.key(2), (3, 5))

    @quick_jit
    def run(z, context):
        params = jax.tree.map(lambda a: 2 * a, layer.init(jax.random.key(0), z, context))
        alone = jax.vmap(lambda z, c: layer.bijector(params, context=c).forward_and_log_det(z))(z, context)
        (together, swapped) = (layer.bijector(params, context=c).forward_and_log_det(z) for c in (context, context[::-1]))
        return together, alone, swapped

    together, alone, swapped = run(z, context)
    for a, b, c in zip(together, alone, swapped, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        assert np.abs(a - c)[0].max() > 1e-3
    without = jax.eval_shape(layer.init, jax.random.key(0), z)
    assert set(without) == {"free"}


@pytest.mark.parametrize("name", ["planar", "radial"])
def test_zero_parameters_are_the_identity_and_have_gradients(name):
    # At the second point a radial flow's radius is 0, and a planar flow's w is 0 throughout.
    layer, z = BIJECTORS[name].make(), jnp.array([[0.5, -1.0], [0.0, 0.0]])

    @quick_jit
    def run(params, z):
        bijector = layer.bijector(params)
        (x, log_det), pull = jax.vjp(lambda p, h: layer.bijector(p).forward_and_log_det(h), params, z)
        pull_back = jax.vjp(lambda p, h: layer.bijector(p).inverse_and_log_det(h), params, z)[1]
        ones = jnp.ones_like(z), jnp.ones_like(log_det)
        return x, bijector.inverse(z), log_det, (pull(ones), pull_back(ones))

    x, back, log_det, gradients = run(jax.tree.map(jnp.zeros_like, layer.init(jax.random.key(0), z)), z)
    for found, want in ((x, z), (back, z), (log_det, 0)):
        np.testing.assert_allclose(found, want, atol=1e-6)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradients))


def test_impossible_shapes():
    x = jnp.zeros((2, 3))
    with pytest.raises(UserError, match=r"columns=4 is invalid for vectors of dimension 3; it must be <= 3"):
        jax.eval_shape(sylvester(columns=4, reflections=4).init, jax.random.key(0), x)
    with pytest.raises(UserError, match=r"a planar layer needs events that are vectors \[D\]; here they have the shape \(4, 4, 1\)"):
        jax.eval_shape(planar().init, jax.random.key(0), jnp.zeros((2, 4, 4, 1)))
