"""What networks of continuous-time models are made of: features of time, images of half and twice the size."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.bijector_laws import quick_jit
from tests.test_nets import KEY
from vaeflow.build import build
from vaeflow.errors import UserError
from vaeflow.model import split_params
from vaeflow.nets import EMBEDDINGS
from vaeflow.nets.embedding import Embedding, fourier, sinusoidal
from vaeflow.nets.resample import double_fir, double_nearest, filtered, half_fir, half_mean


def draws(*shape: int):
    return jnp.asarray(np.random.default_rng(2).normal(size=shape), jnp.float32)


def upfirdn(x, up, down, gain, pad):
    """Zeros between the pixels, zeros around, the outer product of [1, 3, 3, 1], every `down`-th pixel: by its definition, in numpy."""
    kernel = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64 * gain
    spread = np.zeros((x.shape[0] * up, x.shape[1] * up, x.shape[2]))
    spread[::up, ::up] = x
    wide = np.pad(spread, (pad, pad, (0, 0)))
    rows, columns = wide.shape[0] - 3, wide.shape[1] - 3
    full = np.array([[np.einsum("ij,ijc->c", kernel, wide[i : i + 4, j : j + 4]) for j in range(columns)] for i in range(rows)])
    return full[::down, ::down]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (half_fir, (1, 2, 1, (1, 1))),
        (double_fir, (2, 1, 4, (2, 1))),
        (lambda x: filtered(x, 1, 2), (1, 1, 1, (2, 2))),
    ],
    ids=["half", "double", "blur"],
)
def test_the_fir_filter_is_its_definition(function, arguments):
    x = draws(2, 3, 4, 6, 2)
    y = quick_jit(function)(x)
    expected = np.array([[upfirdn(np.asarray(a), *arguments) for a in row] for row in x])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_means_and_repetition():
    x = draws(2, 4, 6, 3)
    np.testing.assert_allclose(
        half_mean(x), (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4, rtol=1e-5, atol=1e-6
    )
    doubled = double_nearest(x)
    assert doubled.shape == (2, 8, 12, 3)
    for i in range(2):
        for j in range(2):
            np.testing.assert_array_equal(doubled[:, i::2, j::2], x)


def test_embeddings_are_float32_and_fixed():
    assert set(EMBEDDINGS) == {"fourier", "sinusoidal"}
    t = jnp.linspace(0.0, 1.0, 6).reshape(2, 3)
    for kind in EMBEDDINGS:
        embedding = build({"it": {"kind": kind, "width": 8}}, "it", Embedding)
        params = embedding.init(KEY)
        trained, stats, fixed = split_params(params)
        assert not trained and not stats and jax.tree.leaves(fixed)
        for dtype in (jnp.float32, jnp.bfloat16):
            features = quick_jit(embedding.features)(params, t.astype(dtype))
            assert features.shape == (2, 3, 8) and features.dtype == jnp.float32
            expected = np.asarray(t.astype(dtype), np.float64)[..., None] * np.asarray(params["fixed"]["frequencies"], np.float64)
            np.testing.assert_allclose(features, np.concatenate([np.sin(expected), np.cos(expected)], -1), atol=2e-4)
        with jax.enable_x64(True):
            assert embedding.features(params, jnp.asarray(0.3)).dtype == jnp.float64


def test_the_frequencies():
    steps = np.arange(0, 1000, 111)
    embedding = sinusoidal(width=8)
    frequencies = np.exp(-np.log(10_000) * np.arange(4) / 3)  # DDPM's, of integer steps
    angles = steps[:, None] * frequencies
    expected = np.concatenate([np.sin(angles), np.cos(angles)], 1)
    np.testing.assert_allclose(embedding.features(embedding.init(KEY), jnp.asarray(steps / 1000)), expected, atol=2e-4)
    drawn = np.asarray(fourier(width=20_000).init(KEY)["fixed"]["frequencies"])
    assert abs(np.std(drawn) / (2 * np.pi * 16) - 1) < 0.03 and abs(np.mean(drawn)) < 4
    assert np.any(drawn != fourier(width=20_000).init(jax.random.key(1))["fixed"]["frequencies"])


def test_a_width_that_sines_and_cosines_cannot_share():
    with pytest.raises(UserError, match=r"fourier: width=5 is invalid; it must be an even number >= 2"):
        fourier(width=5)
    with pytest.raises(UserError, match=r"sinusoidal: width=2 is invalid; it must be an even number >= 4"):
        sinusoidal(width=2)
