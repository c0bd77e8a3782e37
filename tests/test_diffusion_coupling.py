"""Minibatch couplings: permutations, cheaper than none, inside a class."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from vaeflow.diffusion.coupling import COUPLINGS, costs

over_couplings = pytest.mark.parametrize("kind", COUPLINGS)
B = 32


def batch(seed: int = 0):
    draws = np.random.default_rng(seed)
    return jnp.asarray(draws.normal(size=(B, 2, 1)) + 2, jnp.float32), jnp.asarray(draws.normal(size=(B, 2, 1)), jnp.float32)


LABEL = jnp.arange(B) % 3


def cost(x, noise) -> float:
    return float(jnp.mean(jnp.sum((x - noise) ** 2, (1, 2))))


@over_couplings
@pytest.mark.parametrize("label", [None, LABEL], ids=["all", "classes"])
def test_a_coupling_permutes_and_lowers_the_cost(kind, label):
    (x, noise), pair = batch(), jax.jit(COUPLINGS[kind]().pair)
    order = pair(jax.random.key(0), x, noise, label)
    assert sorted(order.tolist()) == list(range(B))  # so both marginals are kept
    if label is not None:
        assert jnp.all(label[order] == label)
    before, after = cost(x, noise), cost(x, noise[order])
    assert after == before if kind == "independent" else after < 0.9 * before
    rows, columns = scipy.optimize.linear_sum_assignment(np.asarray(costs(x, noise, label)))
    least = cost(x[rows], noise[columns])
    assert after == pytest.approx(least, rel=1e-5) if kind == "exact" else after >= least - 1e-5


def test_exact_does_not_depend_on_the_order_of_the_batch():
    x, noise = batch(1)
    turn = np.random.default_rng(2).permutation(B)
    pair = jax.jit(COUPLINGS["exact"]().pair)
    order, turned = pair(jax.random.key(0), x, noise, None), pair(jax.random.key(0), x[turn], noise, None)
    assert jnp.all(order[turn] == turned)


def test_sinkhorn_comes_close_to_exact_as_eps_falls():
    x, noise = batch(3)
    small, large, best = (
        cost(x, noise[jax.jit(coupling.pair)(jax.random.key(0), x, noise, None)])
        for coupling in (COUPLINGS["sinkhorn"](eps=0.01, iterations=100), COUPLINGS["sinkhorn"](eps=1.0), COUPLINGS["exact"]())
    )
    assert best - 1e-5 <= small < large


@over_couplings
def test_no_key_is_used_twice(kind):
    x, noise = batch()
    with jax.debug_key_reuse(True):
        jax.jit(COUPLINGS[kind]().pair)(jax.random.key(0), x, noise, LABEL)
