"""objectives/schedules.py: the weight of the KL term has the stated values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import objectives as o

STEPS = [0, 1, 5, 10, 14, 15, 20, 25, 1_000_000]


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
