"""Relaxed and straight-through draws of four categories against exact gradients and exact probabilities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import quick
from vaeflow import objectives as o

DRAWS = 20_000
LOGITS = jnp.array([0.3, -0.5, 1.1, 0.0])
PAYOFF = jnp.array([1.0, -2.0, 0.5, 2.5])


def trace(draws):
    """The trace of the covariance."""
    return draws.var(0, dtype=np.float64).sum()


def relaxed_gradients(temperature, hard=False):
    """d E[exp <y, payoff>] / d logits by draws of the Gumbel-softmax."""

    def one(key):
        def value(logits):
            y = o.gumbel_softmax(key, logits, temperature, 1)[0]
            y = o.straight_through(y, jax.nn.one_hot(jnp.argmax(y), 4)) if hard else y
            return jnp.exp(jnp.dot(y, PAYOFF))

        return jax.grad(value)(LOGITS)

    return np.asarray(quick(jax.vmap(one))(jax.random.split(jax.random.key(11), DRAWS)))


def test_relaxed_gradients_lose_their_bias_and_gain_variance_as_the_temperature_falls():
    truth = jax.grad(lambda logits: jnp.dot(jax.nn.softmax(logits), jnp.exp(PAYOFF)))(LOGITS)
    found = [relaxed_gradients(t) for t in (2.0, 0.5, 0.1)]
    bias = [np.linalg.norm(g.mean(0) - truth) for g in found]
    error = [(trace(g) / DRAWS) ** 0.5 for g in found]
    assert bias[0] > 2 * bias[1] > 2 * 3 * bias[2] and bias[1] > 10 * error[1]
    assert error[0] < error[1] < error[2]
    through = relaxed_gradients(0.1, hard=True)
    assert np.linalg.norm(through.mean(0) - truth) > 5 * (trace(through) / DRAWS) ** 0.5  # the limit is biased too


@pytest.mark.parametrize("temperature", [5.0, 0.5, 1e-3])
def test_relaxed_draws_round_to_exact_ones_at_every_temperature(temperature):
    y = np.asarray(o.gumbel_softmax(jax.random.key(1), LOGITS, temperature, DRAWS))
    b = np.asarray(o.binary_concrete(jax.random.key(2), LOGITS, temperature, DRAWS))
    shares = np.eye(4)[y.argmax(-1)].mean(0), (b > 0.5).mean(0)
    for share, p in zip(shares, (jax.nn.softmax(LOGITS), jax.nn.sigmoid(LOGITS)), strict=True):
        np.testing.assert_array_less(np.abs(share - p), 4 * (p * (1 - p) / DRAWS) ** 0.5)
    np.testing.assert_allclose(y.sum(-1), 1, atol=1e-5)
    gap = np.maximum(1 - y.max(-1), np.abs(b - (b > 0.5)).max(-1))
    assert (gap < 1e-3).mean() > 0.97 if temperature < 0.01 else (gap > 1e-3).mean() > 0.97


def test_straight_through_is_exactly_hard_with_the_gradient_of_the_soft():
    soft = o.gumbel_softmax(jax.random.key(1), LOGITS, 0.7, 1000)
    hard = jax.nn.one_hot(soft.argmax(-1), 4)
    np.testing.assert_array_equal(o.straight_through(soft, hard), hard)
    np.testing.assert_array_equal(
        jax.grad(lambda y: jnp.sum(o.straight_through(y, hard) * PAYOFF))(soft), jnp.broadcast_to(PAYOFF, (1000, 4))
    )
