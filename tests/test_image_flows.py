"""Flows on images: multi-scale as one bijector, what its initialisation sees, contexts that are images, depth that is scanned."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.bijector_laws import perturbed, quick_jit
from vaeflow.bijectors import BIJECTORS, Layer
from vaeflow.build import build
from vaeflow.errors import UserError
from vaeflow.nets import NETS, Net

KEY = jax.random.key(0)
NET = {"kernel": 3, "activation": "tanh", "dtype": "float32"}


def layer(parts: dict, name: str) -> Layer:
    return build(parts, name, Layer)


def glow(depth: int) -> dict:
    """Two scales on 8x8x2: squeeze, `depth` Glow steps, split at 4x4x8; squeeze, `depth` steps at 2x2x16."""
    return {
        "outer": {"kind": "chain", "of": ["squeeze", "steps", "split"]},
        "split": {"kind": "split", "event": [4, 4, 8], "inner": "inner", "net": "prior", "cap": 2.0},
        "inner": {"kind": "chain", "of": ["squeeze", "steps", "norm"]},
        "squeeze": {"kind": "squeeze", "factor": 2},
        "steps": {"kind": "repeat", "of": "step", "n": depth, "memory": "store"},
        "step": {"kind": "chain", "of": ["norm", "linear", "coupling"]},
        "norm": {"kind": "actnorm"},
        "linear": {"kind": "lu_linear", "start": "rotation"},
        "coupling": {"kind": "affine_coupling", "net": "net", "mask": "channel", "flip": False, "cap": 2.0},
        "net": {"kind": "glow_net", "channels": [4, 4], **NET},
        "prior": {"kind": "convnet", "channels": [], **NET},
    }


def images(*shape: int, dtype=jnp.float32):
    return jnp.asarray(3 + 2 * np.random.default_rng(0).normal(size=shape), dtype)


def test_multi_scale_is_one_bijector_between_an_image_and_a_vector():
    parts = glow(2)
    whole, x = layer(parts, "outer"), images(6, 8, 8, 2)
    params = perturbed(quick_jit(whole.init)(KEY, x))
    with jax.enable_x64(True):
        x = images(6, 8, 8, 2, dtype=jnp.float64)

        @quick_jit
        def run(params, x):
            f = whole.bijector(params)
            z, log_det = f.inverse_and_log_det(x)
            back, minus = f.forward_and_log_det(z)
            # By hand, layer by layer: the parts are those of the whole, and their log_dets add up.
            h = layer(parts, "squeeze").bijector({}).inverse(x)
            h, log_det_steps = layer(parts, "steps").bijector(params["01"]).inverse_and_log_det(h)
            kept, out = jnp.split(h, 2, axis=-1)
            z_kept, log_det_kept = layer(parts, "inner").bijector(params["02"]["inner"]).inverse_and_log_det(kept)
            prior = build(parts, "prior", Net).module((2, 4, 4, 4), 3, True)
            t, raw = jnp.moveaxis(jnp.asarray(prior.apply({"params": params["02"]["net"]}, kept)), 1, 0)
            s = 2 * jnp.tanh(raw / 2)
            z_out, total = (out - t) * jnp.exp(-s), log_det_steps + log_det_kept - jnp.sum(s, (1, 2, 3))
            by_hand = jnp.concatenate([z_kept.reshape(6, -1), z_out.reshape(6, -1)], -1)
            return z, log_det, back, minus, by_hand, total

        z, log_det, back, minus, by_hand, total = run(params, x)
        assert z.shape == (6, 128) and log_det.shape == (6,) and z.dtype == jnp.float64
        np.testing.assert_allclose(back, x, atol=1e-9)
        np.testing.assert_allclose(minus, -log_det, atol=1e-9)
        np.testing.assert_allclose(z, by_hand, atol=1e-9)
        np.testing.assert_allclose(log_det, total, atol=1e-9)


def test_data_dependent_initialisation_reaches_the_last_scale():
    whole, x = layer(glow(2), "outer"), images(64, 8, 8, 2)

    @quick_jit
    def run(x):
        return whole.bijector(whole.init(KEY, x)).inverse(x)

    z = np.asarray(run(x))[:, :64].reshape(64, 2, 2, 16)  # what the inner ActNorm, its last layer, gives
    np.testing.assert_allclose(z.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(z.std((0, 1, 2)), 1, atol=1e-3)


def test_squeeze_puts_blocks_into_channels_row_by_row():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    z = jnp.asarray(BIJECTORS["squeeze"].make(factor=2).bijector({}).inverse(x))
    np.testing.assert_array_equal(z[0, 0, 1], [2, 3, 6, 7])
    assert z.shape == (1, 2, 2, 4)


def test_split_sends_the_batch_to_the_statistics_inside():
    parts = {
        "split": {"kind": "split", "event": [4, 4, 2], "inner": "norm", "net": "", "cap": 2.0},
        "norm": {"kind": "batch_norm", "momentum": 0.0, "eps": 1e-5},
    }
    whole, x = layer(parts, "split"), images(8, 4, 4, 2)
    params = whole.init(KEY, x)
    assert whole.update is not None
    after = whole.update(params, 2 * x + 1)
    np.testing.assert_allclose(after["inner"]["stats"]["mean"], jnp.mean(2 * x[..., :1] + 1, (0, 1, 2)), rtol=1e-5)
    training = whole.bijector(params, train=True, key=KEY).inverse(2 * x + 1)
    np.testing.assert_allclose(training, whole.bijector(after).inverse(2 * x + 1), atol=1e-4)
    z = training.reshape(8, 2, 16)
    np.testing.assert_array_equal(z[:, 1], (2 * x + 1)[..., 1].reshape(8, 16))  # without a net what leaves is as it was


@pytest.mark.parametrize("of", ["steps", "blocks"])
def test_the_program_of_a_training_step_does_not_grow_with_depth(of):
    def equations(depth: int) -> int:
        parts = glow(depth if of == "steps" else 2)
        if of == "blocks":
            parts["net"] = {"kind": "resnet", "width": 4, "blocks": depth, **NET}
        whole, x = layer(parts, "outer"), images(2, 8, 8, 2)

        def loss(params, x):
            z, log_det = whole.bijector(params).inverse_and_log_det(x)
            return jnp.mean(jnp.sum(z**2, -1) / 2 - log_det)

        params = jax.eval_shape(whole.init, KEY, x)
        return str(jax.make_jaxpr(jax.grad(loss, allow_int=True))(params, x)).count(" = ")

    assert equations(2) == equations(8)


@pytest.mark.parametrize("name", ["convnet", "glow_net", "resnet"])
def test_a_context_that_is_an_image(name):
    sizes = {"width": 4, "blocks": 1} if name == "resnet" else {"channels": [4]}
    assert name in NETS
    module = build({"it": {"kind": name, **sizes, **NET}}, "it", Net).module((2, 6, 6, 1), 3, False)
    x, context = images(3, 2, 6, 6, 2), images(2, 6, 6, 3)
    params = module.init(KEY, x[0, :1], context[:1])
    y = jnp.asarray(module.apply(params, x, context))
    assert y.shape == (3, 2, 2, 6, 6, 1)  # the context's batch is the last leading axis
    moved = jnp.abs(jnp.asarray(module.apply(params, x, context.at[1, 0, 0].add(1.0))) - y).max((0, 2, 5))
    assert not moved[0].any() and moved[1, 0, 0] > 0 and moved[1, 5, 5] == 0  # local, and of its own example alone
    with pytest.raises(UserError, match=r"a context of \(3, 3\) pixels does not fit a layer on \(6, 6\) pixels"):
        module.init(KEY, x[0], images(2, 3, 3, 3))


def test_events_that_do_not_fit_are_clear_errors():
    make = {name: BIJECTORS[name].make for name in ("squeeze", "flatten", "split")}
    with pytest.raises(UserError, match=r"squeeze: factor=2 does not divide the height and width of the event \(7, 7, 1\)"):
        make["squeeze"](factor=2).init(KEY, images(2, 7, 7, 1))
    with pytest.raises(UserError, match=r"a squeeze layer needs events that are images .* the shape \(8,\)"):
        make["squeeze"](factor=2).init(KEY, images(2, 8))
    with pytest.raises(UserError, match=r"flatten: event=\(2, 2, 1\) does not fit .* the shape \(4, 4, 1\)"):
        make["flatten"](event=(2, 2, 1)).init(KEY, images(2, 4, 4, 1))
    inner = BIJECTORS["actnorm"].make()
    with pytest.raises(UserError, match=r"split: event=\(4,\) does not fit .* the shape \(6,\)"):
        make["split"](event=(4,), inner=inner, net=None, cap=1.0).init(KEY, images(2, 6))
    with pytest.raises(UserError, match=r"split: event=\(4, 4, 1\) is invalid"):
        make["split"](event=(4, 4, 1), inner=inner, net=None, cap=1.0)
