"""Lower bounds of log p(x) from log-weights.

A log-weight is one draw's log w = log p(x, z) - log q(z|x), z ~ q(z|x); draws are the LEADING axis: [k, B].
E[w] = p(x), so mean log w is a lower bound of log p(x) and log mean w a tighter one. Everything is in nats.

multi_sample.py has the estimators of their gradients.
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


def renyi(log_w: Array, alpha: float) -> Array:
    """1/(1 - alpha) log (1/k) sum_i w_i^(1 - alpha): [k, B] -> [B], alpha != 1 (Li & Turner 2016, eq. 10)."""
    return iwae((1 - alpha) * log_w) / (1 - alpha)


@jax.custom_vjp
def scale_gradient(z: Array, weight: Array) -> Array:
    """z [k, B, ...], whose gradient is multiplied by weight [k, B] on its way back."""
    del weight
    return z


def _scale_forward(z, weight):
    return z, weight


def _scale_backward(weight, g):
    return g * weight.reshape(*weight.shape, *[1] * (g.ndim - weight.ndim)).astype(g.dtype), jnp.zeros_like(weight)


scale_gradient.defvjp(_scale_forward, _scale_backward)
