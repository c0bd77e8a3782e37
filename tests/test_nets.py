"""Networks: the shape that is asked, free leading axes, context, zero heads, precision; the transposed convolution against XLA's."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.bijector_laws import quick_jit
from vaeflow.build import build
from vaeflow.errors import UserError
from vaeflow.nets import NETS, Net
from vaeflow.nets.conv import UpConv

KEY = jax.random.key(0)
KINDS = {
    "mlp": {"hidden": [6]},
    "linear": {"kind": "mlp", "hidden": []},
    "mlp_torch": {"kind": "mlp", "hidden": [6], "init": "torch"},
    "conv": {"channels": [3, 4], "kernel": 3, "stride": 2, "hidden": [5]},
    "flat": {"kind": "conv", "channels": [], "kernel": 3, "stride": 2, "hidden": []},
    "deconv": {"channels": [4, 3], "kernel": 4, "stride": 2, "hidden": [5]},
    "gated_conv": {"channels": [3, 4], "kernels": [3, 5], "strides": [1, 2], "hidden": [5]},
    "gated_dense": {"kind": "gated_conv", "channels": [], "kernels": [], "strides": [], "hidden": []},
    "gated_deconv": {"hidden": [5], "width": 4, "channels": [4, 3, 3], "kernels": [3, 4, 3], "strides": [1, 2, 3]},
    "res_conv": {"channels": [3, 4, 5], "kernel": 3, "stride": 2},
    "res_deconv": {"channels": [5, 4, 3], "kernel": 3, "stride": 2},
    "downsample": {"channels": [3, 4], "kernel": 3, "stride": 2, "blocks": 1},
    "upsample": {"channels": [4], "kernel": 4, "stride": 2, "blocks": 0},
    "convnet": {"channels": [4], "kernel": 3},
    "pixels": {"kind": "convnet", "channels": [], "kernel": 3},
    "glow_net": {"channels": [4, 4], "kernel": 3},
    "resnet": {"width": 4, "blocks": 2, "kernel": 3},
    "transformer": {"width": 4, "depth": 2, "heads": 2},
    "unet": {"channels": 4, "multipliers": [1, 2], "blocks": 1, "heads": 2},
    "dit": {"width": 8, "depth": 2, "heads": 2},
    "dit_vectors": {"kind": "dit", "width": 8, "depth": 2, "heads": 2},
    "concat_squash": {"hidden": [6]},
}
IMAGE = {"conv", "flat", "gated_conv", "gated_dense", "res_conv", "downsample", "upsample", "convnet", "pixels"}  # what they read
IMAGE |= {"glow_net", "resnet", "transformer", "unet", "dit"}
SHAPES = {
    **{name: [(8, 8, 1), (2, 7, 10, 3)] for name in ("deconv", "gated_deconv", "res_deconv")},
    "downsample": [(2, 2, 3), (2, 2, 2, 1)],
    "upsample": [(16, 16, 1), (2, 15, 16, 3)],
    "convnet": [(8, 8, 3), (5, 8, 8, 2)],
    **{name: [(2, 8, 8, 2)] for name in ("pixels", "glow_net", "resnet", "transformer", "unet", "dit")},
}
CASES = [(name, out) for name in KINDS for out in SHAPES.get(name, [(4,), (2, 3, 3, 1)])]


def net(name: str, dtype: str = "float32") -> Net:
    activation = {} if name.startswith("gated") else {"activation": "tanh"}
    return build({"it": {"kind": name, "dtype": dtype, **activation, **KINDS[name]}}, "it", Net)


def inputs(name: str, *lead: int, dtype=jnp.float32):
    draws = np.random.default_rng(0)
    event = (8, 8, 2) if name in IMAGE else (6,)
    return jnp.asarray(draws.normal(size=(*lead, *event)), dtype), jnp.asarray(draws.normal(size=(lead[-1], 3)), dtype)


def filled(module: nn.Module, *args):
    """Parameters of the right shapes; compiling a random initialisation would cost more than all the rest."""
    draws = np.random.default_rng(1)
    return jax.tree.map(lambda a: jnp.asarray(0.3 * draws.normal(size=a.shape), a.dtype), jax.eval_shape(module.init, KEY, *args))


def test_every_kind_is_tried():
    tried = {KINDS[name].get("kind", name) for name in KINDS}
    assert tried | {"beside"} == set(NETS)  # that one reads an image from its context, see the next test


def test_beside_reads_an_image_from_the_end_of_its_context():
    parts = {"it": {"kind": "beside", "of": "conv", "channels": 2}, "conv": {"kind": "convnet", "channels": [4], "kernel": 3}}
    module = build(parts, "it", Net).module((4, 4, 1), 3, False)
    inner = build(parts, "conv", Net).module((4, 4, 1), 3, False)
    draws = np.random.default_rng(0)
    x, y, c = (jnp.asarray(draws.normal(size=shape), jnp.float32) for shape in ((3, 4, 4, 1), (3, 4, 4, 2), (3, 5)))
    context = jnp.concatenate([c, y.reshape(3, -1)], -1)
    params = filled(module, x, context)
    want = inner.apply({"params": params["params"]["net"]}, jnp.concatenate([x, y], -1), c)
    np.testing.assert_array_equal(module.apply(params, x, context), want)
    alone = module.apply(filled(module, x, context[:, 5:]), x, context[:, 5:])  # nothing is left for the network
    assert np.shape(alone) == (3, 4, 4, 1)
    with pytest.raises(UserError, match="requires a context of at least 32 entries, not 5"):
        module.init(KEY, x, c)


@pytest.mark.parametrize(("name", "out"), CASES)
def test_shapes_leading_axes_and_context(name, out):
    x, context = inputs(name, 3, 4)
    module = net(name).module(out, 3 if name in IMAGE else 1, False)
    params = filled(module, x[0, :1], context[:1])  # on one example, as a coupling does it

    @quick_jit
    def run(params, x, context):
        y = module.apply(params, x, context)
        alone = jax.vmap(jax.vmap(lambda x, c: module.apply(params, x, c)), (0, None))(x, context)
        return y, alone, module.apply(params, x, context + 1)

    y, alone, other = run(params, x, context)
    assert y.shape == (3, 4, *out) and y.dtype == jnp.float32
    np.testing.assert_allclose(y, alone, atol=1e-5)
    # Every output, in every one of its parts, depends on the input and on the context.
    assert np.all(np.std(y, axis=(0, 1)) > 0) and np.all(np.abs(other - y).max((0, 1)) > 0)
    assert "context" not in filled(module, x[0, :1])["params"]


@pytest.mark.parametrize("name", KINDS)
def test_a_zero_head_gives_zeros_and_bfloat16_keeps_float32_at_the_border(name):
    x, context = inputs(name, 4)
    module = net(name, "bfloat16").module(SHAPES.get(name, [(2, 4)])[0], 3 if name in IMAGE else 1, True)
    params = quick_jit(module.init)(KEY, x, context)
    y = quick_jit(module.apply)(params, x, context)
    assert not np.any(y) and y.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", ["mlp", "conv", "deconv", "gated_conv", "res_deconv", "convnet", "resnet", "unet", "dit", "concat_squash"])
def test_float64_inputs_are_promoted_and_bfloat16_computes_in_bfloat16(name):
    with jax.enable_x64(True):
        x, context = inputs(name, 4, dtype=jnp.float64)
        results = []
        for dtype in ("float32", "bfloat16"):
            module = net(name, dtype).module(SHAPES.get(name, [(2, 4)])[0], 3 if name in IMAGE else 1, False)
            params = jax.tree.map(lambda a: a.astype(jnp.float32), filled(module, x, context))
            results.append(np.asarray(quick_jit(module.apply)(params, x, context)))
        assert results[0].dtype == results[1].dtype == np.float64
        assert np.any(results[0] != results[0].astype(np.float32))
        assert 1e-5 < np.abs(results[0] - results[1]).max() < 0.1


@pytest.mark.parametrize(("kernel", "stride"), [(1, 2), (3, 2), (4, 2), (5, 2), (3, 1), (4, 3)])
def test_upconv_is_a_transposed_convolution(kernel, stride):
    x = inputs("conv", 2)[0][:, :5, :3]
    module = UpConv(3, kernel, stride, None, nn.initializers.normal(1.0), nn.initializers.normal(1.0))
    params = filled(module, x)

    @quick_jit
    def both(params):
        kernel, bias = params["params"]["kernel"], params["params"]["bias"]
        return module.apply(params, x), jax.lax.conv_transpose(x, kernel[::-1, ::-1], (stride, stride), "SAME") + bias

    y, reference = both(params)
    np.testing.assert_allclose(y, reference, atol=1e-5)
    assert y.shape == (2, 5 * stride, 3 * stride, 3)


def test_what_an_architecture_cannot_do_is_a_clear_error():
    with pytest.raises(UserError, match=r"a conv network reads images .* given events of rank 1"):
        net("conv").module((4,), 1, False)
    with pytest.raises(UserError, match="a convnet network reads images"):
        net("convnet").module((8, 8, 1), 1, False)
    with pytest.raises(UserError, match=r"a convnet network gives images .* the shape \(4,\) is asked"):
        net("convnet").module((4,), 3, False)
    with pytest.raises(UserError, match=r"a deconv network gives images .* the shape \(4,\) is asked"):
        net("deconv").module((4,), 1, False)
    empty = {"kind": "deconv", **KINDS["deconv"], "channels": [], "activation": "relu", "dtype": "float32"}
    with pytest.raises(UserError, match=r"channels=\(\) is invalid"):
        build({"it": empty}, "it", Net).module((8, 8, 1), 1, False)
