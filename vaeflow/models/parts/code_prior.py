"""An autoregressive distribution over codes c [n], integers below K, from a causal network:

log p(c) = sum_i log p(c_i | c_<i),        p(c_i | c_<i) = softmax(l_i(c_<i))        l [..., n, K]
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vaeflow.distributions import Joint
from vaeflow.model import Array

Logits = Callable[[Array], Array]  # codes [..., n] -> l [..., n, K], l_i a function of c_<i


def conditionals(logits: Logits, codes: Array) -> Array:
    """log p(c_i | c_<i): codes [..., n] -> [..., n]."""
    log_p = jax.nn.log_softmax(logits(codes))
    codes = jnp.broadcast_to(codes, log_p.shape[:-1])  # one vector under many contexts
    return jnp.take_along_axis(log_p, codes[..., None], axis=-1)[..., 0]


def draw(logits: Logits, key: Array, shape: tuple[int, ...], temperature: float = 1.0) -> Array:
    """Codes of `shape` [..., n], one position after the other; temperature t: of softmax(l / t), the likeliest code for t = 0.

    c_i = argmax(l_i + t g), g standard Gumbel. The whole network runs once a position.
    """

    def step(codes, now):
        i, key = now
        l = logits(codes)[..., i, :]
        return codes.at[..., i].set(jnp.argmax(l + temperature * jax.random.gumbel(key, l.shape), axis=-1)), None

    positions = jnp.arange(shape[-1])
    return jax.lax.scan(step, jnp.zeros(shape, jnp.int32), (positions, jax.random.split(key, shape[-1])))[0]


def code_prior(logits: Logits, length: int, batch: tuple[int, ...] = ()) -> Joint:
    """The distribution of codes [length]; batch: that of the logits' context."""

    def sample(key, n):
        codes = draw(logits, key, (n, *batch, length))
        return codes, conditionals(logits, codes)

    return Joint(sample, lambda codes: conditionals(logits, codes), (1,) * length, batch)
