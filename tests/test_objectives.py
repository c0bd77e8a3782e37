"""objectives/: bounds are ordered, schedules have the stated values, free bits stop at the floor."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import objectives as o

STEPS = [0, 1, 5, 10, 14, 15, 20, 25, 1_000_000]


def test_bounds_are_ordered_and_exact_for_constant_weights():
    log_w = 3 * jax.random.normal(jax.random.key(0), (4096, 64)) - 4.5  # log E[w] = 0
    means = [float(o.iwae(log_w.reshape(k, -1)).mean()) for k in (1, 4, 64, 4096)]
    assert float(o.elbo(log_w).mean()) == pytest.approx(means[0], abs=1e-3)
    assert means == sorted(means) and means[-1] < 0.5
    np.testing.assert_allclose(o.iwae(jnp.full((7, 2), -500.0)), -500, rtol=1e-6)
    np.testing.assert_allclose(o.elbo(jnp.full((7, 2), -500.0)), -500, rtol=1e-6)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("constant", [2.0] * 9),
        ("linear", [0.5, 0.65, 1.25, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]),
        ("cyclical", [0.5, 0.8, 2.0, 0.5, 1.7, 2.0, 0.5, 2.0, 0.5]),
    ],
)
def test_beta_schedules(name, expected):
    schedule = o.beta_schedule(name, start=0.5, end=2.0, steps=10, ramp=0.5)
    np.testing.assert_allclose([schedule(s) for s in STEPS], expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(schedule))(jnp.array(STEPS)), expected, rtol=1e-6)


def test_free_bits():
    kl = jnp.array([0.1, 0.5, -0.01, 3.0])
    assert float(o.free_bits(kl, 0.5)) == pytest.approx(4.5)
    np.testing.assert_array_equal(jax.grad(o.free_bits)(kl, 0.4), [0, 1, 0, 1])
    assert float(o.free_bits(kl, 0.0)) == pytest.approx(3.59)
    np.testing.assert_array_equal(jax.grad(o.free_bits)(kl, 0.0), [1, 1, 1, 1])
