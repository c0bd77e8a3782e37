"""Edits by the family `diffusion`: of a Gaussian they are its conditional, and what is known comes back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import KEY, quick
from tests.test_diffusion_model import CLOCK, net_of
from vaeflow.bijectors.elementwise import scale
from vaeflow.diffusion.edits import EDITS
from vaeflow.diffusion.kinds import KINDS
from vaeflow.diffusion.steps import STEPS
from vaeflow.models.diffusion import diffusion
from vaeflow.nets.mlp import mlp


@pytest.mark.parametrize("flatten", [False, True])
def test_inpainting_of_a_gaussian_is_its_conditional(flatten):
    """Of images [2, 2, 1] N(1, 4 C): the right column given the left one, whatever the network's prediction of the known entries is."""
    root = np.random.default_rng(0).normal(size=(4, 4))
    covariance = root @ root.T / 4 + 0.1 * np.eye(4)

    def exact(x, context, dropout):
        del dropout
        t = context[..., 0]

        def data(x, t):
            return (1 - t) * covariance @ jnp.linalg.solve((1 - t) ** 2 * covariance + t**2 * jnp.eye(4), x.reshape(4))

        return jax.vmap(data)(x.reshape(-1, 4), t.reshape(-1)).reshape(x.shape).astype(x.dtype)

    model = diffusion(
        event=(2, 2, 1), net=net_of(exact), embedding=CLOCK, predict=KINDS["data"](), layer=scale(factor=2.0, shift=1.0), t_min=0.01,
        t_max=0.99, flatten=flatten, sampler=STEPS["ancestral"](), steps=60, edit=EDITS["right"](), edit_method="covariance",
    )  # fmt: skip
    reference = 1 + 2 * jnp.array([0.5, 9.0, -1.0, 9.0]).reshape(2, 2, 1)  # nothing is read of the right column
    params, n = model.init(KEY, {"x": jnp.zeros((8, 2, 2, 1))}), 6000
    assert model.edits and model.sample is not None
    draw = jax.jit(lambda key: model.sample(params, key, n, None, reference=jnp.broadcast_to(reference, (n, 2, 2, 1))))  # type: ignore[misc,call-arg]
    drawn = {name: np.asarray(value, np.float64) for name, value in draw(KEY).items()}
    np.testing.assert_allclose(drawn["x"][:, :, 0], np.broadcast_to(reference[:, 0], (n, 2, 1)), rtol=1e-5)
    np.testing.assert_allclose(drawn["known"][0, ..., 0], [[2, 1], [-1, 1]], rtol=1e-5)
    gain = covariance[np.ix_([1, 3], [0, 2])] @ np.linalg.inv(covariance[np.ix_([0, 2], [0, 2])])
    inner = covariance[np.ix_([1, 3], [1, 3])] - gain @ covariance[np.ix_([0, 2], [1, 3])]
    rest = (drawn["x"][:, :, 1, 0] - 1) / 2
    np.testing.assert_allclose(rest.mean(0), gain @ [0.5, -1.0], atol=5 * np.sqrt(inner.diagonal().max() / n))
    np.testing.assert_allclose(np.cov(rest.T), inner, atol=0.06 * inner.diagonal().max())  # the steps' own error is 0.03


def test_edits_of_grey_values_return_what_is_known():
    """By replacement; the other method is above."""
    options = dict(event=(4, 4, 1), levels=17, net=mlp(hidden=(4,)), flatten=True, layer=scale(factor=8.5, shift=8.5), steps=2)
    model = diffusion(edit=EDITS["center"](), **options)  # type: ignore[arg-type]
    x = jax.random.randint(KEY, (3, 4, 4, 1), 0, 17).astype(jnp.uint8)
    params = quick(model.init)(KEY, {"x": x})
    drawn = quick(lambda x: model.sample(params, KEY, 3, None, reference=x))(x)  # type: ignore[misc,call-arg]
    known = EDITS["center"]().on((4, 4, 1)).mask
    np.testing.assert_array_equal(np.asarray(drawn["x"])[:, known], np.asarray(x)[:, known])
    np.testing.assert_array_equal(np.asarray(drawn["known"])[:, known], np.asarray(x)[:, known])
    assert not np.array_equal(drawn["x"], x)
