"""chain, repeat, inverse, and what models rely on: ranks, keys, statistics, distrax."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.bijector_laws import nets_and_layers, perturbed, quick_jit
from vaeflow.bijectors import Layer, chain, inverse, repeat
from vaeflow.bijectors.core.layer import Bijection, at_rank
from vaeflow.bijectors.core.scalar_map import bounded
from vaeflow.build import build
from vaeflow.errors import UserError
from vaeflow.model import merge_params, split_params

KEY = jax.random.key(0)


def make(kind: str, **arguments) -> Layer:
    return build({**nets_and_layers("float32"), "it": {"kind": kind, **arguments}}, "it", Layer)


def part(name: str) -> Layer:
    return build(nets_and_layers("float32"), name, Layer)


def normal(*shape: int, seed: int = 0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def shrink() -> Layer:
    """x [.., D] from z [.., D/2]: a layer that changes the shape (its log_det is not a bijector's; only shapes matter here)."""

    def forward(z):
        return jnp.concatenate([z, z], -1), jnp.zeros(z.shape[:-1])

    def backward(x):
        return x[..., : x.shape[-1] // 2], jnp.zeros(x.shape[:-1])

    return Layer(lambda key, x, context=None: {}, lambda params, **_: Bijection(forward, backward, 1))


def test_a_chain_is_listed_from_the_data_to_the_latent():
    layer = chain(make("scale", shift=1.0, factor=2.0), make("scale", shift=10.0, factor=3.0))
    bijector = layer.bijector(layer.init(KEY, jnp.zeros((2, 3))))
    x, log_det = bijector.forward_and_log_det(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(x, 1 + 2 * (10 + 3 * np.array([1.0, 2.0])))
    np.testing.assert_allclose(log_det, np.log(6), rtol=1e-6)
    assert bijector.event_ndims_out == 0


def test_a_chain_has_the_rank_of_its_widest_layer_and_sums_every_log_det():
    image = make("affine_coupling", net="convnet", mask="checkerboard", flip=False, cap=2.0)
    layer = chain(make("scale", shift=0.0, factor=2.0), image, make("actnorm"))
    x = normal(5, 4, 4, 2)
    params = quick_jit(layer.init)(KEY, x)
    bijector = layer.bijector(params)
    z, log_det = bijector.inverse_and_log_det(x)
    assert bijector.event_ndims_out == 3 and log_det.shape == (5,)
    by_hand = -32 * np.log(2) - 16 * jnp.sum(bounded(params["02"]["log_scale"]))  # the coupling starts as the identity
    np.testing.assert_allclose(log_det, jnp.full(5, by_hand), rtol=1e-5)
    np.testing.assert_allclose(jnp.std(z, axis=(0, 1, 2)), 1, rtol=1e-4)  # actnorm saw what the layers before it gave
    with pytest.raises(UserError, match="events of rank 3 cannot act on events of rank 1"):
        at_rank(bijector, 1)


def test_an_empty_chain_is_the_identity_and_no_empty_branch_is_kept():
    x = normal(3, 2)
    z, log_det = at_rank(chain().bijector(chain().init(KEY, x), key=KEY), 1).inverse_and_log_det(x)
    np.testing.assert_array_equal(z, x)
    np.testing.assert_array_equal(log_det, np.zeros(3))
    params = chain(make("permutation", order="reverse"), make("actnorm")).init(KEY, x)
    assert list(params) == ["01"]
    assert jax.tree.structure(merge_params(*split_params(params))) == jax.tree.structure(params)


def test_repeat_initialises_each_copy_on_what_the_copies_before_it_give():
    layer = repeat(chain(make("actnorm"), make("permutation", order="random"), make("nice_scaling")), 3)
    x = 5 + 4 * normal(64, 6)
    params = quick_jit(layer.init)(KEY, x)
    assert {leaf.shape for leaf in jax.tree.leaves(params)} == {(3, 6)}
    np.testing.assert_allclose(params["00"]["shift"][0], jnp.mean(x, 0), rtol=1e-5)
    np.testing.assert_allclose(params["00"]["shift"][1:], 0, atol=1e-5)
    orders = params["01"]["fixed"]["permutation"]
    assert len({tuple(row.tolist()) for row in orders}) == 3  # each copy has its own key
    with pytest.raises(UserError, match=r"repeat needs a layer that keeps the shape; this one maps \(6,\) to \(3,\)"):
        repeat(shrink(), 2).init(KEY, x)


@pytest.mark.parametrize("method", ["forward_and_log_det", "inverse_and_log_det"])
def test_repeat_is_one_scan_whatever_its_length(method):
    def program(n: int):
        layer, x = repeat(part("step"), n), normal(4, 6)
        params = jax.eval_shape(layer.init, KEY, x)
        return jax.make_jaxpr(lambda p, x: getattr(layer.bijector(p), method)(x))(params, x).jaxpr.eqns

    assert [str(e.primitive) for e in program(2)] == [str(e.primitive) for e in program(7)]
    assert [str(e.primitive) for e in program(7)].count("scan") == 1


def test_repeat_sends_each_copy_its_own_context_and_key():
    def bijector(params, context=None, key=None, train=False):
        noise = jax.random.normal(key) if train else 0.0
        step = jnp.sum(context, -1, keepdims=True) + noise
        return Bijection(lambda z: (z + step, jnp.zeros(z.shape[:-1])), lambda x: (x - step, jnp.zeros(x.shape[:-1])), 1)

    noisy = Layer(lambda key, x, context=None: {}, bijector)
    x, context, keys = jnp.zeros((2, 3)), jnp.ones((2, 4)), jax.random.split(KEY, 5)
    for layer in (repeat(noisy, 5), chain(*[noisy] * 5)):
        np.testing.assert_allclose(layer.bijector({}, context=context).forward(x), 20)
        noise = jnp.sum(jax.vmap(jax.random.normal)(keys))
        np.testing.assert_allclose(layer.bijector({}, context=context, key=KEY, train=True).forward(x), 20 + noise, rtol=1e-5)


def test_inverse_exchanges_the_directions_and_is_initialised_on_noise():
    layer, x = part("coupling"), normal(6, 4)
    params = perturbed(inverse(layer).init(KEY, x))
    for given, expected in (("forward", "inverse"), ("inverse", "forward")):
        results = getattr(inverse(layer).bijector(params), f"{given}_and_log_det")(x)
        for a, b in zip(results, getattr(layer.bijector(params), f"{expected}_and_log_det")(x), strict=True):
            np.testing.assert_array_equal(a, b)
    far = inverse(make("actnorm")).init(KEY, 1e3 + x)
    assert float(jnp.max(jnp.abs(far["shift"]))) < 3


@pytest.mark.parametrize("combine", ["chain", "repeat", "nested"])
def test_update_pushes_the_batch_through_in_training_mode(combine):
    norm, mix = make("batch_norm", momentum=0.0, eps=1e-5), part("coupling")
    unit = chain(norm, mix)
    layer = {"chain": chain(unit, unit, norm), "repeat": repeat(unit, 3), "nested": chain(repeat(unit, 2), norm)}[combine]
    x, later = normal(64, 4), 3 + 2 * normal(64, 4, seed=1)
    params = perturbed(quick_jit(layer.init)(KEY, x), 0.2)
    training = layer.bijector(params, train=True).inverse_and_log_det(later)
    after = layer.update(params, later)
    # At momentum 0 the statistics are those of this batch, layer by layer: evaluation gives what training gave.
    evaluation = layer.bijector(after).inverse_and_log_det(later)
    for a, b in zip(training, evaluation, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)
    assert float(jnp.max(jnp.abs(layer.bijector(params).inverse(later) - training[0]))) > 0.1


def test_layers_without_statistics_have_no_update():
    assert chain(part("coupling")).update is None and repeat(part("coupling"), 2).update is None
    assert inverse(part("coupling")).update is None
    norm = inverse(part("norm"))
    params = norm.init(KEY, normal(8, 3))
    assert norm.update is not None
    assert jax.tree.structure(norm.update(params, normal(8, 3))) == jax.tree.structure(params)


def test_a_layer_is_a_distrax_bijector():
    layer = chain(make("actnorm"), repeat(part("step"), 2))
    params = perturbed(quick_jit(layer.init)(KEY, normal(32, 3)))
    base = distrax.MultivariateNormalDiag(jnp.zeros(3), jnp.ones(3))
    flow = distrax.Transformed(base, layer.bijector(params))
    x, log_prob = flow.sample_and_log_prob(seed=KEY, sample_shape=(7,))
    assert x.shape == (7, 3)
    np.testing.assert_allclose(log_prob, flow.log_prob(x), atol=1e-4)
