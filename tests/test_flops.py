"""FLOPs against counts by hand and against XLA's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.peers import with_vaeflow, works
from benchmarks.steps import made_of
from vaeflow.training import setup
from vaeflow.training.flops import flops

A, B = jnp.ones((3, 4)), jnp.ones((4, 5))
PRODUCT = 2 * 3 * 4 * 5


def product(a, b):
    return a @ b


def test_products():
    assert flops(product, A, B) == PRODUCT
    assert flops(product, jax.ShapeDtypeStruct((7, 3, 4), jnp.float32), jnp.ones((7, 4, 5))) == 7 * PRODUCT
    assert flops(lambda a, b: jnp.einsum("bik,bjk->bij", a, b), jnp.ones((7, 3, 4)), jnp.ones((7, 5, 4))) == 7 * PRODUCT


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions(groups):
    x, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4 // groups, 6))

    def conv(x, kernel, stride=1, padding="SAME"):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )

    each = 2 * 3 * 3 * (4 // groups)
    assert flops(conv, x, kernel) == 2 * 8 * 8 * 6 * each
    assert flops(lambda x, k: conv(x, k, 2, "VALID"), x, kernel) == 2 * 3 * 3 * 6 * each
    # Both gradients of a strided one cost what it costs itself: the zeros between the inputs of a transposed one are none.
    pulled = flops(lambda x, k: jax.vjp(lambda x, k: conv(x, k, 2), x, k)[1](jnp.ones((2, 4, 4, 6))), x, kernel)
    assert pulled == pytest.approx(3 * flops(lambda x, k: conv(x, k, 2), x, kernel), rel=0.05)


def test_loops_and_branches():
    w = jnp.ones((4, 4))
    body = 2 * 3 * 4 * 4 + 3 * 4
    scanned = lambda a: jax.lax.scan(lambda a, _: (jnp.tanh(a @ w), None), a, None, length=5)[0]  # noqa: E731
    assert flops(scanned, A) == 5 * body
    assert flops(jax.vmap(scanned), jnp.ones((2, 3, 4))) == 2 * 5 * body
    assert flops(lambda a: jax.lax.while_loop(lambda s: s[0] < 9, lambda s: (s[0] + 1, s[1] @ w), (0, a)), A) == 2 * 3 * 4 * 4 + 2
    assert flops(lambda p, a: jax.lax.cond(p, lambda a: a @ w @ w, lambda a: a, a), jnp.bool_(True), A) == 2 * 2 * 3 * 4 * 4 + 1


def test_what_wraps_a_function_counts_what_is_inside():
    @jax.custom_vjp
    def custom(a, b):
        return a @ b

    custom.defvjp(lambda a, b: (a @ b, (a, b)), lambda res, g: (g @ res[1].T, res[0].T @ g))

    @jax.custom_jvp
    def other(a, b):
        return a @ b

    other.defjvps(lambda da, _, a, b: da @ b, lambda db, _, a, b: a @ db)

    for wrapped in (jax.jit(product), jax.remat(product), custom, other, jax.jit(jax.jit(custom))):
        assert flops(wrapped, A, B) == PRODUCT
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("i",))
    spec = jax.sharding.PartitionSpec()
    assert flops(jax.shard_map(product, mesh=mesh, in_specs=(spec, spec), out_specs=spec), A, B) == PRODUCT
    assert flops(jax.grad(lambda ab: custom(*ab).sum()), (A, B)) == 3 * PRODUCT + 3 * 5


def test_a_gradient_is_three_products():
    assert flops(lambda a, b: jax.vjp(product, a, b)[1](jnp.ones((3, 5))), A, B) == 3 * PRODUCT


def test_elementwise_and_indexing():
    assert flops(lambda a: jnp.exp(a) + 1, A) == 2 * 12
    assert flops(lambda a: a.sum(), A) == 12
    assert flops(lambda a: a.T.reshape(-1)[jnp.array([1, 2])].at[0].add(1.0), A) < 12
    assert flops(lambda a: a.T, A) == 0


def test_a_step_of_an_mlp_is_near_what_xla_counts():
    keys = jax.random.split(jax.random.key(0), 3)
    params = [jax.random.normal(key, shape) for key, shape in zip(keys, ((64, 128), (128, 128), (128, 10)), strict=True)]
    tx = optax.adam(1e-3)

    def step(params, state, x, y):
        def loss(params):
            h = x
            for w in params[:-1]:
                h = jax.nn.relu(h @ w)
            return optax.softmax_cross_entropy_with_integer_labels(h @ params[-1], y).mean()

        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    args = (params, tx.init(params), jnp.ones((32, 64)), jnp.zeros(32, jnp.int32))
    costs = jax.jit(step).lower(*args).compile().cost_analysis()
    assert costs is not None
    assert flops(step, *args) == pytest.approx(costs["flops"], rel=0.2)


@pytest.mark.parametrize("name", ["spline", "vae"])  # the MAF's masked products are cut into blocks, which the dense floor is not
def test_the_floors_of_the_speed_comparison_are_the_products_of_its_models(name):
    x = made_of(with_vaeflow.configured(name), 512)
    params, batch, key = setup.init_params(x)[0], setup.first_batch(x), jax.random.key(0)
    trained = jax.grad(lambda p: x.model.loss(p, key, batch, 0)[0])
    for task, fn in (("train", trained), ("sample", lambda p: x.model.sample(p, key, works.POINTS))):
        triangular = task == "sample"  # the incremental direction computes no zeros
        assert 1 < flops(fn, params) / (1e9 * works.gflop(name, task, triangular)) < 1.1
