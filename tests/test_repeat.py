"""repeat's three ways with memory: the same gradients, and what the backward pass keeps."""

from __future__ import annotations

from typing import Any

import distrax
import jax
import jax.numpy as jnp
import pytest

from tests.bijector_laws import perturbed, quick_jit, relative
from vaeflow.bijectors.core.layer import Layer, repeat
from vaeflow.build import build
from vaeflow.errors import UserError
from vaeflow.model import merge_params, split_params

PARTS: dict[str, Any] = {
    "net": dict(kind="mlp", hidden=(64,), activation="tanh", dtype="float32"),
    "coupling": dict(kind="affine_coupling", net="net", mask="half", flip=False, cap=2.0),
    "spline": dict(
        kind="spline_coupling", net="net", mask="half", flip=True, bins=4, bound=3.0, min_width=1e-3, min_height=1e-3, min_slope=1e-3
    ),
    "order": dict(kind="permutation", order="random"),  # integers under "fixed"
    "norm": dict(kind="batch_norm", momentum=0.9, eps=1e-5),
    "step": dict(kind="chain", of=("order", "coupling", "spline")),
}
KEY = jax.random.key(0)
METHODS = ("forward_and_log_det", "inverse_and_log_det")
MODES = ("store", "remat", "invert")


def inputs(dtype=jnp.float32, batch: int = 9):
    return jax.random.normal(KEY, (batch, 5), dtype), jax.random.normal(jax.random.key(1), (batch, 2), dtype)


def gradients(layer: Layer, method: str, params, x, context, key=None):
    """Gradients with respect to (trained parameters, x, context) of a loss that mixes every output."""
    trained, stats, fixed = split_params(params)

    def loss(trained, x, context):
        y, log_det = getattr(layer.bijector(merge_params(trained, stats, fixed), context=context, key=key), method)(x)
        return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.cos(log_det))

    return jax.grad(loss, argnums=(0, 1) if context is None else (0, 1, 2))(trained, x, context)


def differences(unit: Layer, method: str, params, x, context, key=None) -> dict[str, float]:
    """How far the gradients of remat and invert are from those of store, relative to 1 + |gradient|."""

    @quick_jit
    def run(params, x, context, key):
        store, *others = (gradients(repeat(unit, 3, memory), method, params, x, context, key) for memory in MODES)
        return [jnp.max(jnp.stack(jax.tree.leaves(jax.tree.map(relative, other, store)))) for other in others]

    return dict(zip(MODES[1:], map(float, run(params, x, context, key)), strict=True))


@pytest.mark.parametrize(("method", "conditional"), [pytest.param(METHODS[0], False, marks=pytest.mark.full), (METHODS[1], True)])
def test_gradients_are_those_of_the_plain_scan(method, conditional):
    unit = build(PARTS, "step", Layer)
    found = {}
    for double in (False, True):
        with jax.enable_x64(double):
            x, context = inputs(jnp.float64 if double else jnp.float32)
            context = context if conditional else None
            if not double:
                params = perturbed(quick_jit(repeat(unit, 3).init)(KEY, x, context))
            found[double] = differences(unit, method, params, x, context)
    assert max(found[True].values()) < 1e-10
    assert found[False]["remat"] < 1e-5 and found[False]["invert"] < 1e-4  # of three layers inverted in float32


def noisy() -> Layer:
    """x = z exp(s u) with a factor u drawn from the layer's key."""

    def bijector(params, key: Any = None, **_):
        s = params["s"] * jax.random.uniform(key, params["s"].shape)
        return distrax.Block(distrax.ScalarAffine(jnp.zeros_like(s), jnp.exp(s)), 1)

    return Layer(lambda key, x, context=None: {"s": jnp.full(x.shape[-1], 0.3)}, bijector)


def test_every_layer_keeps_its_key():
    x, _ = inputs()
    params = {"s": jnp.full((3, 5), 0.3)}
    assert max(differences(noisy(), METHODS[1], params, x, None, KEY).values()) < 1e-5


def test_vmap_over_parameters():
    layer = repeat(build(PARTS, "coupling", Layer), 2, "invert")
    x, context = inputs()

    @quick_jit
    def run(keys):
        several = jax.vmap(lambda k: perturbed(layer.init(k, x, context)))(keys)
        together = jax.vmap(lambda params: gradients(layer, METHODS[1], params, x, context))(several)
        alone = gradients(layer, METHODS[1], jax.tree.map(lambda a: a[1], several), x, context)
        return jax.tree.map(lambda a, b: relative(a[1], b), together, alone)

    assert max(jax.tree.leaves(run(jax.random.split(KEY, 2)))) < 1e-5


def test_statistics_cannot_be_inverted():
    parts = PARTS | {"it": dict(kind="repeat", of="norm", n=2, memory="invert")}
    with pytest.raises(UserError, match=r"^parts.it: memory='invert' needs a layer without batch statistics"):
        build(parts, "it", Layer)


def temporary(memory: Any, n: int) -> tuple[int, int]:
    """(bytes of temporary memory of the gradient's program, bytes of the parameters)."""
    parts = PARTS | {"it": dict(kind="repeat", of="coupling", n=n, memory=memory)}
    layer = build(parts, "it", Layer)
    x, _ = inputs(batch=512)
    params = jax.eval_shape(lambda: layer.init(KEY, x))
    run = jax.jit(lambda params, x: gradients(layer, METHODS[1], params, x, None))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    return run.lower(params, x).compile().memory_analysis().temp_size_in_bytes, size  # type: ignore[union-attr]


def test_inversion_needs_no_memory_for_depth():
    (store, _), (remat, _), (invert, size) = (temporary(memory, 16) for memory in MODES)
    deeper, deeper_size = temporary("invert", 32)
    assert invert < store / 3 and remat < store
    assert deeper - invert <= deeper_size - size
