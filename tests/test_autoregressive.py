"""What the laws do not say of autoregressive layers: what depends on what, and what the sequential direction costs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.bijector_laws import perturbed, quick_jit, relative
from vaeflow.bijectors.affine import affine
from vaeflow.bijectors.autoregressive import affine_autoregressive, autoregressive
from vaeflow.bijectors.core.layer import inverse, repeat
from vaeflow.errors import UserError
from vaeflow.nets.made import Made, MadeNet, degrees, made, masked_dense
from vaeflow.training.flops import flops


def conditioner(**changes: Any) -> Made:
    values: dict[str, Any] = dict(
        hidden=(20, 13), activation="tanh", order="natural", inversion="incremental", tolerance=0.0, dtype="float32"
    )
    return made(**(values | changes))


def started(layer, d: int, context: int = 0, scale: float = 0.3):
    """(perturbed params, x [6, d], context [6, C] or None)."""
    draws = np.random.default_rng(0)
    x = jnp.asarray(draws.normal(size=(6, d)), jnp.float32)
    c = jnp.asarray(draws.normal(size=(6, context)), jnp.float32) if context else None
    return perturbed(quick_jit(layer.init)(jax.random.key(0), x, c), scale), x, c


@pytest.mark.parametrize("order", ["natural", "reverse", "random"])
def test_each_coordinate_depends_on_the_earlier_ones_exactly(order):
    layer = affine_autoregressive(made=conditioner(order=order), cap=2.0)
    params, x, _ = started(layer, 7)
    place = {"natural": np.arange(7), "reverse": np.arange(7)[::-1]}.get(order)
    if place is None:
        place = np.asarray(params["fixed"]["order"])
        assert sorted(place) == list(range(7)) and any(place != np.arange(7))
    jacobian = np.asarray(jax.jacrev(lambda x: layer.bijector(params).inverse(x))(x[0]))[place][:, place]
    assert np.all(np.triu(jacobian, 1) == 0)
    below = np.tril(jacobian, -1)[np.tril_indices(7, -1)]
    assert np.all(below != 0)  # and on all of them


def test_every_output_sees_the_context():
    layer = affine_autoregressive(made=conditioner(), cap=2.0)
    params, x, context = started(layer, 5, context=3)
    assert context is not None
    jacobian = jax.jacrev(lambda c: layer.bijector(params, context=c).inverse(x[0]))(context[0])
    assert np.all(np.abs(jacobian).max(1) > 0)


def test_degrees_are_spread_evenly():
    assert list(degrees(4, 5, context=False)) == [1, 2, 3, 4] and list(degrees(5, 5, context=True)) == [0, 1, 2, 3, 4]
    assert list(degrees(3, 1, context=False)) == [0, 0, 0]
    assert set(np.bincount(degrees(512, 43, context=False))[1:]) == {12, 13}


@pytest.mark.parametrize("shape", [(30,), (2, 30)])
def test_skipping_the_zero_blocks_changes_nothing(monkeypatch, shape):
    draws = np.random.default_rng(0)
    h, kernel = draws.normal(size=(4, 50)).astype(np.float32), draws.normal(size=(50, *shape)).astype(np.float32)
    seen, own = degrees(50, 9, False), degrees(30, 9, True)
    mask = (seen[:, None] <= own).reshape(50, *[1] * (len(shape) - 1), 30)
    want = np.tensordot(h, kernel * mask, 1)
    for least in (0, 10**9):
        monkeypatch.setitem(masked_dense.__globals__, "_LEAST", least)
        np.testing.assert_allclose(masked_dense(jnp.asarray(h), jnp.asarray(kernel), seen, own), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("d", [2, 9, 40])  # more and fewer degrees than groups, more than units
def test_incremental_is_the_limit_of_jacobi(d):
    one = affine_autoregressive(made=conditioner(), cap=2.0)
    other = affine_autoregressive(made=conditioner(inversion="jacobi"), cap=2.0)
    params, z, context = started(one, d, context=2, scale=0.1)

    @quick_jit
    def both(params, z):
        def run(layer):
            def loss(params, z):
                x, log_det = layer.bijector(params, context=context).forward_and_log_det(z)
                return jnp.sum(jnp.sin(x)) + jnp.sum(log_det), (x, log_det)

            return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, z)

        return run(one), run(other)

    ((_, exact), gradient), ((_, iterated), implicit) = both(params, z)
    assert max(relative(a, b) for a, b in zip(exact, iterated, strict=True)) < 1e-5
    assert max(relative(a, b) for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(implicit), strict=True)) < 1e-4


def test_a_tolerance_ends_the_iteration_early():
    params, z, _ = started(affine_autoregressive(made=conditioner(), cap=2.0), 30, scale=0.01)
    passes = []

    def counted(transformer):
        def forward(theta, z):
            jax.debug.callback(lambda: passes.append(1))
            return transformer.forward(theta, z)

        return transformer._replace(forward=forward)

    def run(tolerance):
        passes.clear()
        iterating = conditioner(inversion="jacobi", tolerance=tolerance)
        x = autoregressive(counted(affine(2.0)), iterating).bijector(params).forward(z)
        jax.block_until_ready(x)
        jax.effects_barrier()
        return x, len(passes)

    (rough, few), (fine, many) = run(1e-2), run(0.0)
    assert few < many <= 31
    np.testing.assert_allclose(rough, fine, atol=0.05)


def test_the_sequential_direction_costs_one_dense_pass():
    own_made = conditioner(hidden=(512, 512))
    layer, d, b = affine_autoregressive(made=own_made, cap=2.0), 43, 100
    params, _, _ = started(layer, d)
    z = jnp.zeros((b, d))
    dense = 2 * b * (d * 512 + 512 * 512 + 512 * 2 * d)
    found = flops(lambda params, z: layer.bijector(params).forward(z), params, z)
    assert found < 1.1 * dense
    assert flops(lambda params, x: layer.bijector(params).inverse(x), params, z) < 0.75 * dense


def test_iaf_is_the_inverse_and_it_repeats():
    own_made = conditioner(hidden=(8,))
    maf = repeat(affine_autoregressive(made=own_made, cap=2.0), 2)
    iaf = inverse(maf)
    params, z, _ = started(maf, 4, scale=0.1)
    np.testing.assert_array_equal(iaf.bijector(params).forward(z), maf.bijector(params).inverse(z))


def test_bad_input():
    layer = affine_autoregressive(made=conditioner(), cap=2.0)
    with pytest.raises(UserError, match=r"vectors \[D\]; here they have the shape \(4, 4, 1\)"):
        layer.init(jax.random.key(0), jnp.zeros((2, 4, 4, 1)))


def test_hidden_units_start_with_unit_variance():
    """Whatever the number of inputs that a unit sees."""
    net = MadeNet(conditioner(hidden=(4000,)), 2)
    kernel = jnp.asarray(net.init(jax.random.key(0), jnp.zeros((1, 9)))["params"]["dense_0"]["kernel"])
    own = degrees(4000, 9, False)
    h = jnp.asarray(np.random.default_rng(0).normal(size=(500, 9)), jnp.float32) @ (kernel * (np.arange(9)[:, None] < own))
    np.testing.assert_allclose([jnp.var(h[:, own == k]) for k in (1, 4, 8)], 1, atol=0.25)
