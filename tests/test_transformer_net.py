"""The transformer network: shapes, context, tokens that all see each other, compile size, and the laws of a coupling around it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.bijector_laws import ends, failures, perturbed, quick_jit, relative, residuals
from vaeflow.bijectors.affine import affine_coupling
from vaeflow.errors import UserError
from vaeflow.nets.net import Net
from vaeflow.nets.transformer import transformer

SIZES: dict[str, Any] = dict(width=8, depth=2, heads=2, activation="gelu", dtype="float32")
X = jax.random.normal(jax.random.key(0), (5, 2, 3, 2))
C = jax.random.normal(jax.random.key(1), (5, 3))


def net(**changes) -> Net:
    return transformer(**(SIZES | changes))


def made(out=(2, 3, 4), **changes):
    """(apply, params) with noise on all parameters, so that a head of zeros is no excuse."""
    module = net(**changes).module(out, 3, True)
    params = perturbed(quick_jit(module.init)(jax.random.key(2), X, C)["params"], 0.2)
    return quick_jit(lambda x, c: module.apply({"params": params}, x, c)), params


def test_rows_are_apart_leading_axes_are_free_and_context_counts():
    apply, _ = made()
    y = apply(X, C)
    assert y.shape == (5, 2, 3, 4) and y.dtype == jnp.float32
    order = jnp.array([3, 0, 4, 1, 2])
    assert relative(apply(X[order], C[order]), y[order]) < 1e-5
    assert relative(apply(jnp.stack([X, 2 * X]), C)[0], y) < 1e-5
    moved = jnp.max(jnp.abs(apply(X, C.at[1].add(1.0)) - y), axis=(1, 2, 3))
    assert moved[1] > 1e-3 and jnp.max(moved.at[1].set(0)) == 0


def test_every_pixel_sees_every_pixel_and_where_it_stands():
    apply, _ = made()
    module, (_, params) = net().module((2, 3, 4), 3, True), made()
    sees = quick_jit(jax.jacrev(lambda x: module.apply({"params": params}, x[None], C[:1])[0].sum(-1)))(X[0])
    assert (jnp.max(jnp.abs(sees), axis=-1) > 1e-6).all()
    assert relative(apply(X[:, ::-1], C)[:, ::-1], apply(X, C)) > 1e-3  # without positions these were equal


def test_parameters_of_every_pixel_on_a_leading_axis_and_bfloat16():
    apply, params = made(out=(2, 2, 3, 1), dtype="bfloat16")
    y = apply(X, C)
    assert y.shape == (5, 2, 2, 3, 1) and y.dtype == jnp.float32
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    exact, _ = made(out=(2, 2, 3, 1))
    assert 0 < relative(exact(X, C), y) < 0.1


def test_compile_size_does_not_grow_with_depth():
    def equations(depth):
        module = net(depth=depth).module((2, 3, 4), 3, True)
        params = jax.eval_shape(module.init, jax.random.key(0), X)
        return str(jax.make_jaxpr(jax.grad(lambda p: jnp.sum(jnp.asarray(module.apply(p, X)) ** 2)))(params)).count("\n")

    assert equations(2) == equations(12)


def test_laws_of_a_coupling_around_it():
    layer = affine_coupling(net=net(width=4, heads=2), mask="checkerboard", flip=False, cap=2.0)
    shape = (2, 2, 1)
    with jax.enable_x64(True):
        params = perturbed(layer.init(jax.random.key(0), jnp.ones((2, *shape), jnp.float32), jnp.ones((2, 3), jnp.float32)), 0.1)
        inputs = ends(layer, params, shape, "real", jnp.float64)
        assert not failures(quick_jit(functools.partial(residuals, layer, 3))(params, inputs), 1e-8, True)


def test_errors():
    with pytest.raises(UserError, match="transformer: heads=3 does not divide width=8"):
        net(heads=3)
    with pytest.raises(UserError, match="a transformer network reads images"):
        net().module((4,), 1, True)
    with pytest.raises(UserError, match="a transformer network gives images"):
        net().module((4,), 3, True)
