"""Autoregressive flows of patches: two ways to invert, guidance, and flows of noised data."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import config, quick
from vaeflow.bijectors.patches import patch_autoregressive
from vaeflow.errors import UserError
from vaeflow.models import build_model

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(3, 2, 3, 2)).astype(np.float32)
CONTEXT = np.concatenate([np.eye(3, dtype=np.float32), np.zeros((3, 1), np.float32)], -1)  # the last entry: whether it is dropped


def trained(layer):
    """Parameters away from their start, where the layer is the identity."""
    params = layer.init(KEY, X, CONTEXT)
    noise = np.random.default_rng(1)
    return jax.tree.map(lambda a: a + 0.3 * noise.normal(size=a.shape).astype(np.float32), params)


@pytest.mark.parametrize("flip", [False, True])
def test_both_inversions_agree_and_depend_on_earlier_patches_alone(flip):
    layers = [patch_autoregressive(width=8, depth=1, heads=2, flip=flip, inversion=how) for how in ("jacobi", "sequential")]
    params = trained(layers[0])
    a, b = (np.asarray(quick(lambda z, f=layer: f.bijector(params, CONTEXT).forward(z))(X)) for layer in layers)
    np.testing.assert_allclose(a, b, atol=2e-4)
    inverse = quick(lambda x: layers[0].bijector(params, CONTEXT).inverse(x))
    moved = X.copy()
    moved[:, 1, 0] += 1.0  # the fourth of six patches
    change = np.abs(np.asarray(inverse(moved)) - np.asarray(inverse(X))).max((0, -1)).reshape(-1) > 1e-6
    assert change.tolist() == ([True] * 4 + [False] * 2 if flip else [False] * 3 + [True] * 3)


def test_guidance_mixes_the_numbers_of_the_context_and_of_none():
    layer = patch_autoregressive(width=8, depth=1, heads=2)
    params = trained(layer)

    def x(w, context=CONTEXT):
        return np.asarray(quick(lambda z: layer.bijector(params, context, guidance=w).forward(z))(X))

    dropped = np.zeros_like(CONTEXT)
    dropped[:, -1] = 1
    np.testing.assert_array_equal(x(1.0), np.asarray(quick(lambda z: layer.bijector(params, CONTEXT).forward(z))(X)))
    np.testing.assert_allclose(x(0.0), x(1.0, dropped), atol=1e-5)
    assert np.abs(x(2.0) - x(1.0)).max() > 1e-3


def test_samples_are_denoised_by_the_score():
    """An untrained flow is N(0, I), whose score is -y: a sample y is shown as (1 - noise^2) y."""
    values = dict(event=(2, 2, 1), layer="patches", flatten=False, noise=0.5)
    model = build_model(config("flow", values))
    params = quick(model.init)(KEY, {"x": X[:, :, :2, :1]})
    found = quick(lambda: model.sample(params, KEY, 50))()
    np.testing.assert_allclose(found["x"], 0.75 * found["noised"], rtol=1e-5, atol=1e-6)
    rough = build_model(config("flow", values | dict(denoise=False)))
    np.testing.assert_array_equal(quick(lambda: rough.sample(params, KEY, 50)["x"])(), found["noised"])


def test_training_adds_noise_and_drops_the_context():
    """At the start, where the flow is N(0, I): E[loss] = D/2 log 2 pi + (|x|^2 + D noise^2) / 2."""
    values = dict(event=(2, 2, 1), layer="patches", flatten=False, noise=2.0, label_drop=0.5)
    model = build_model(config("flow", values))
    batch = {"x": np.zeros((4000, 2, 2, 1), np.float32), "context": np.ones((4000, 3), np.float32)}
    params = quick(model.init)(KEY, {name: a[:8] for name, a in batch.items()})
    loss = float(quick(model.loss)(params, KEY, batch, 0)[0])
    assert loss == pytest.approx(2 * np.log(2 * np.pi) + 2 * 4.0, abs=4 * np.sqrt(8) * 2 / np.sqrt(4000))
    assert params["layer"]["net"]["context"]["kernel"].shape[0] == 4
    with pytest.raises(UserError, match="needs a context"):
        model.init(KEY, {"x": batch["x"][:8]})
    with pytest.raises(UserError, match=r"sample.guidance=2 needs a model that was trained without its context"):
        build_model(config("flow", dict(event=(2, 2, 1), layer="patches", flatten=False, guidance=2.0)))
    with pytest.raises(UserError, match=r"sample.guidance=2 needs a layer that reads it"):
        build_model(config("flow", dict(event=(4,), layer="layer", label_drop=0.1, guidance=2.0)))


def test_what_does_not_fit_is_one_line():
    with pytest.raises(UserError, match="needs events that are images"):
        patch_autoregressive(width=8, heads=2).init(KEY, jnp.zeros((3, 4)))
    with pytest.raises(UserError, match="heads=3 does not divide width=8"):
        patch_autoregressive(width=8, heads=3)
