"""objectives/schedules.py: every schedule has the stated values; a number is the constant one."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import objectives as o
from vaeflow.build import build
from vaeflow.errors import UserError

STEPS = [0, 1, 5, 10, 14, 15, 20, 25, 1_000_000]


@pytest.mark.parametrize(
    "values, expected",
    [
        (dict(kind="constant", value=2.0), [2.0] * 9),
        (dict(kind="linear", steps=10, start=0.5, end=2.0), [0.5, 0.65, 1.25, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]),
        (dict(kind="linear", steps=10), [0.0, 0.1, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        (dict(kind="cyclical", steps=10, start=0.5, end=2.0), [0.5, 0.8, 2.0, 0.5, 1.7, 2.0, 0.5, 2.0, 0.5]),
        (dict(kind="geometric", steps=10, start=2.0, end=0.5), [2.0, 2.0 * 4**-0.1, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]),
    ],
)
def test_values(values, expected):
    schedule = build({"schedule": values}, "schedule", o.Schedule)
    np.testing.assert_allclose([schedule.at(s) for s in STEPS], expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(schedule.at))(jnp.array(STEPS)), expected, rtol=1e-6)


def test_the_points_of_consistency_models_are_the_papers():
    """N(k) and mu(k) of Song et al. 2023, appendix C, at CIFAR-10's settings (s_0 = 2, s_1 = 150, mu_0 = 0.9, K = 800,000), by the exact
    integer form of the ceiling; and N(k) of Song and Dhariwal 2024 (10 to 1280 in eight stages of K / 8)."""
    steps = 800_000
    count, decay, doubling = (o.SCHEDULES[kind](steps=steps) for kind in ("root", "root_decay", "doubling"))
    assert count.at(0) == 2 and count.at(steps) == 151 and count.at(10 * steps) == 151
    assert float(decay.at(0)) == pytest.approx(0.9) and float(decay.at(steps)) == pytest.approx(0.9 ** (2 / 151))
    for k in (1, 1000, 123_456, 400_000, 777_777):
        under = k * (151**2 - 4) + 4 * steps  # N is the smallest integer with N >= sqrt(under / K)
        n = math.isqrt(under // steps)
        n += n * n * steps < under
        assert count.at(k) == n
        assert float(decay.at(k)) == pytest.approx(math.exp(2 * math.log(0.9) / n))
    stages = [float(doubling.at(k)) for k in (0, 99_999, 100_000, 200_000, 699_999, 700_000, 799_999, 800_000, 10**7)]
    assert stages == [11, 11, 21, 41, 641, 1281, 1281, 1281, 1281]


def test_ends_may_be_traced():
    def at(start, end):
        return jnp.stack([o.SCHEDULES[kind](steps=10, start=start, end=end).at(5) for kind in ("linear", "cyclical", "geometric")])

    np.testing.assert_allclose(jax.vmap(at)(jnp.array([0.5, 2.0]), jnp.array([2.0, 0.5])), [[1.25, 2.0, 1.0], [1.25, 0.5, 1.0]], rtol=1e-6)


def test_a_number_is_the_constant_schedule():
    assert o.scheduled(3.0).at(7) == 3.0
    schedule = o.SCHEDULES["linear"](steps=10)
    assert o.scheduled(schedule) is schedule


@pytest.mark.parametrize(
    "values, message",
    [
        (dict(kind="linear"), "missing parts.schedule.steps"),
        (dict(kind="linear", steps=0), "parts.schedule.steps=0 is invalid"),
        (dict(kind="lineal", steps=1), "parts.schedule.kind='lineal' is unknown .did you mean 'linear'"),
        (dict(kind="elbo"), "parts.schedule.kind='elbo' is an objective, where a schedule is needed"),
        (dict(kind="geometric", steps=1, start=0.0, end=1.0), "parts.schedule.start=0.0 is invalid"),
        (dict(kind="cyclical", steps=1, ramp=0.0), "parts.schedule.ramp=0.0 is invalid"),
    ],
)
def test_wrong_schedules_are_one_line(values, message):
    with pytest.raises(UserError, match=message) as error:
        build({"schedule": values}, "schedule", o.Schedule)
    assert "\n" not in str(error.value)
