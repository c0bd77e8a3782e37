"""Bounds of log p(x) from log-weights, and their gradients.

A log-weight is one draw's log w = log p(x|z) + log p(z) - log q(z|x), z ~ q(z|x); draws are the LEADING axis: [k, B].
E[w] = p(x), so mean log w is a lower bound of log p(x) and log mean w a tighter one. Everything is in nats.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vaeflow.model import Array


def elbo(log_w: Array) -> Array:
    """(1/k) sum_i log w_i: [k, B] -> [B]. More draws lower its variance, not its gap to log p(x)."""
    return jnp.mean(log_w, axis=0)


def iwae(log_w: Array) -> Array:
    """log (1/k) sum_i w_i: [k, B] -> [B] (Burda et al. 2016, eq. 8). Grows with k in expectation, to log p(x)."""
    return jax.scipy.special.logsumexp(log_w, axis=0) - jnp.log(log_w.shape[0])
