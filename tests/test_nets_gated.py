"""Gated and residual encoders and decoders: against the same formulas in plain lax, at the papers' sizes, and their errors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.bijector_laws import quick_jit
from tests.test_nets import KEY, filled
from vaeflow.build import build
from vaeflow.errors import UserError
from vaeflow.nets import Net

NAMES = ("NHWC", "HWIO", "NHWC")
GATED = {"kind": "gated_conv", "channels": [4, 3], "kernels": [3, 5], "strides": [2, 1], "hidden": [5], "dtype": "float32"}
GATED_UP = {"kind": "gated_deconv", "width": 3, "channels": [4, 3], "kernels": [3, 5], "strides": [1, 2], "hidden": [5], "dtype": "float32"}
RESIDUAL = {"kind": "res_conv", "channels": [3, 4, 5], "kernel": 3, "stride": 2, "activation": "relu", "dtype": "float32"}
PAPERS = [  # their encoders and decoders of 28x28 pixels; numbers of parameters counted by hand, (inputs x taps + 1) x outputs a layer
    ("gated_conv", dict(channels=[32, 32, 64, 64, 64], kernels=[5] * 5, strides=[1, 2, 1, 2, 1], hidden=[256]), (128,), 2_204_352),
    (
        "gated_deconv",
        dict(hidden=[], width=64, channels=[64, 32, 32, 32, 32], kernels=[5] * 5, strides=[1, 2, 1, 2, 1]),
        (28, 28, 1),
        868_897,
    ),
    ("res_conv", dict(channels=[16, 32, 64, 128], kernel=3, stride=2, activation="relu"), (64,), 470_640),
    ("res_deconv", dict(channels=[128, 64, 32, 16], kernel=3, stride=2, activation="relu"), (28, 28, 1), 842_641),
]


def made(part: dict) -> Net:
    return build({"it": {"dtype": "float32", **part}}, "it", Net)


def draws(*shape: int):
    return jnp.asarray(np.random.default_rng(2).normal(size=shape), jnp.float32)


def conv(p, x, stride=1):
    return jax.lax.conv_general_dilated(x, p["kernel"], (stride, stride), "SAME", dimension_numbers=NAMES) + p["bias"]


def up(p, x, stride):
    return jax.lax.conv_transpose(x, p["kernel"][::-1, ::-1], (stride, stride), "SAME", dimension_numbers=NAMES) + p["bias"]


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def gate(h):
    n = h.shape[-1] // 2
    return h[..., :n] / (1 + jnp.exp(-h[..., n:]))


def block(p, i, h, change, f=jax.nn.relu):
    h = h + conv(p[f"keep_b_{i}"], f(conv(p[f"keep_a_{i}"], f(h))))
    return change(p[f"skip_{i}"], h, 2) + change(p[f"change_b_{i}"], f(conv(p[f"change_a_{i}"], f(h))), 2)


def encoded(p, x, c):
    h = gate(conv(p["conv_0"], x, 2) + (c @ p["context"]["kernel"])[:, None, None])
    h = gate(conv(p["conv_1"], h))
    return dense(p["head"], gate(dense(p["dense_0"], h.reshape(len(h), -1))))


def decoded(p, z, c):
    h = gate(dense(p["dense_0"], z) + c @ p["context"]["kernel"])
    h = gate(dense(p["dense_1"], h)).reshape(-1, 4, 4, 3)
    return conv(p["head"], gate(up(p["conv_1"], gate(conv(p["conv_0"], h)), 2)[:, :7, :8]))


def res_encoded(p, x, c):
    h = conv(p["conv"], x) + (c @ p["context"]["kernel"])[:, None, None]
    h = jax.nn.relu(block(p, 1, block(p, 0, h, conv), conv))
    return dense(p["head"], h.reshape(len(h), -1))


def res_decoded(p, z, c):
    h = (dense(p["dense"], z) + c @ p["context"]["kernel"]).reshape(-1, 2, 2, 3)
    h = block(p, 0, h, up)[:, :4, :4]
    return conv(p["head"], jax.nn.relu(block(p, 1, h, up)[:, :7, :8]))


@pytest.mark.parametrize(
    ("part", "formula", "event", "out"),
    [
        (GATED, encoded, (7, 8, 2), (6,)),
        (GATED_UP, decoded, (6,), (7, 8, 1)),
        (RESIDUAL, res_encoded, (7, 8, 2), (6,)),
        (RESIDUAL | {"kind": "res_deconv"}, res_decoded, (6,), (7, 8, 1)),
    ],
    ids=lambda v: v["kind"] if isinstance(v, dict) else "",
)
def test_the_formulas(part, formula, event, out):
    x, context = draws(3, *event), draws(3, 4)[:, ::-1]
    module = made(part).module(out, len(event), False)
    params = filled(module, x, context)
    y, reference = quick_jit(lambda p: (module.apply(p, x, context), formula(p["params"], x, context)))(params)
    assert y.shape == (3, *out) and float(jnp.std(y)) > 0.01
    np.testing.assert_allclose(y, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "part", "out", "count"), PAPERS, ids=[p[0] for p in PAPERS])
def test_the_papers_sizes(kind, part, out, count):
    x = jax.ShapeDtypeStruct((2, 28, 28, 1) if len(out) == 1 else (2, 64 if kind == "gated_deconv" else 32), jnp.float32)
    module = made({"kind": kind, **part}).module(out, x.ndim - 1 if len(out) == 1 else 1, False)
    params = jax.eval_shape(module.init, KEY, x)
    assert jax.eval_shape(module.apply, params, x).shape == (2, *out)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_what_an_architecture_cannot_do_is_a_clear_error():
    with pytest.raises(UserError, match=r"gated_conv: strides=\(2,\) is invalid; it must have one number for each of channels=\(4, 3\)"):
        made(GATED | {"strides": [2]})
    with pytest.raises(UserError, match=r"gated_deconv: kernels=\(3, 3, 3\) is invalid; .* each of channels=\(4, 3\)"):
        made(GATED_UP | {"kernels": [3, 3, 3]})
    with pytest.raises(UserError, match=r"res_deconv: channels=\(\) is invalid; it must name at least one"):
        made(RESIDUAL | {"kind": "res_deconv", "channels": []})
    with pytest.raises(UserError, match=r"parts.it.*kernels.*0"):
        made(GATED | {"kernels": [0, 3]})
    with pytest.raises(UserError, match="activation"):
        made(GATED | {"activation": "tanh"})
    for part, word in ((GATED, "gated_conv"), (RESIDUAL, "res_conv")):
        with pytest.raises(UserError, match=rf"a {word} network reads images .* given events of rank 1"):
            made(part).module((4,), 1, False)
    for part, word in ((GATED_UP, "gated_deconv"), (RESIDUAL | {"kind": "res_deconv"}, "res_deconv")):
        with pytest.raises(UserError, match=rf"a {word} network gives images .* the shape \(4,\) is asked"):
            made(part).module((4,), 1, False)
