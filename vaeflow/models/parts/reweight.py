"""Draws from a density that is known up to a weight, p(z) w(z) / Z: by resampling draws of p, and by Langevin dynamics.

Functions of arrays and callables alone. z [N, D]; every row is a draw of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.model import Array


class Resampled(NamedTuple):
    """z [*rows, D]; ess [*rows] of the proposals' weights; log_mean [*rows], log of their mean, whose exp has the mean Z."""

    z: Array
    ess: Array
    log_mean: Array


def resample(key: Array, propose: Callable[[Array], Array], log_weight: Callable[[Array], Array], m: int) -> Resampled:
    """Sampling-importance-resampling (Rubin 1988): each row is one of its own m proposals, taken with probability w_i / sum_j w_j.

    propose: key -> z [*rows, D] from p;  log_weight: z -> [*rows]. With G_i independent Gumbel noise, argmax_i (log w_i + G_i) has just
    these probabilities, so the proposals stream by and memory does not grow with m. ESS = (sum w)^2 / sum w^2. m = 1 gives draws of p.
    """

    def step(carry, key):
        best, z, total, squares = carry
        key_z, key_g = jax.random.split(key)
        new = propose(key_z)
        log_w = log_weight(new)
        score = log_w + jax.random.gumbel(key_g, log_w.shape, log_w.dtype)
        z = jnp.where((score > best)[..., None], new, z)
        return (jnp.maximum(best, score), z, jnp.logaddexp(total, log_w), jnp.logaddexp(squares, 2 * log_w)), None

    like = jax.eval_shape(propose, key)
    weight = jax.eval_shape(log_weight, like)
    lowest = jnp.full(weight.shape, -jnp.inf, weight.dtype)
    start = (lowest, jnp.zeros(like.shape, like.dtype), lowest, lowest)
    (_, z, total, squares), _ = jax.lax.scan(step, start, jax.random.split(key, m))
    return Resampled(z, jnp.exp(2 * total - squares), total - jnp.log(m))


def langevin(
    key: Array, z: Array, context: Array | None, log_density: Callable[..., Array], steps: int, step_size: float
) -> tuple[Array, Array]:
    """(z after `steps` of the Metropolis-adjusted Langevin algorithm, the share of accepted ones [N]), one chain a row.

    z' = z + e grad log p(z) + sqrt(2 e) n, accepted or not (Roberts & Tweedie 1996): the step size e changes how fast the chains mix, not
    what they sample. log_density: (z [D], context [C] or None) -> [], without a constant; z [N, D], context [N, C] or None.
    """
    import blackjax  # most of a second, and only drawing needs it

    def chain(key, z, context):
        mala: Any = blackjax.mala(lambda z: log_density(z, context), step_size)

        def step(state, key):
            state, info = mala.step(key, state)
            return state, info.is_accepted

        state, accepted = jax.lax.scan(step, mala.init(z), jax.random.split(key, steps))
        return state.position, jnp.mean(accepted)

    return jax.vmap(chain)(jax.random.split(key, len(z)), z, context)


def log_mean(key: Array, log_weight: Callable[[Array], Array], draws: int, at_once: int = 256) -> Array:
    """log of the mean of exp(log_weight(key_i)) [*rows] over `draws` keys, `at_once` at a time: memory does not grow with the draws."""
    found = jax.lax.map(log_weight, jax.random.split(key, draws), batch_size=at_once)
    return jax.nn.logsumexp(found, axis=0) - jnp.log(draws)
