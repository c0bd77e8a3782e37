"""Lower bounds of log p(x) from log-weights, and estimators of their gradients.

A log-weight is one draw's log w = log p(x, z) - log q(z|x), z ~ q(z|x); draws are the LEADING axis: [k, B].
E[w] = p(x), so mean log w is a lower bound of log p(x) and log mean w a tighter one. Everything is in nats.

`bound` has one name for a bound and for the estimator of its gradient, v_i = w_i / sum_j w_j being the normalised weights:

    elbo       mean_i log w_i
    elbo_path  the same without the score of q: its expectation is 0, its variance is not ("sticking the landing",
               Roeder et al. 2017)
    iwae       log mean_i w_i (Burda et al. 2016); its gradient is sum_i v_i d log w_i
    iwae_one   the same with one draw i ~ v in place of the sum: k draws forward, ONE backward (Burda et al. 2016, section 3)
    iwae_path  the same as iwae without the score of q, whose expectation is not 0 for k > 1: biased for q, of low variance (Roeder
               et al. 2017)
    dreg       gradient of iwae for q by sum_i v_i^2 (d log w_i / dz_i) dz_i: unbiased, and its signal-to-noise does not fall with k
               (doubly reparameterised, Tucker et al. 2019); for p as in iwae
    renyi      1/(1 - alpha) log mean_i w_i^(1 - alpha) (Li & Turner 2016); alpha = 0 is iwae, alpha -> 1 the elbo; alpha < 0 is no
               lower bound
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from vaeflow.model import Array

Bound = Literal["elbo", "elbo_path", "iwae", "iwae_one", "iwae_path", "dreg", "renyi"]
# Those that need log q as a function of z with q's own parameters held fixed.
PATH = ("elbo_path", "iwae_path", "dreg")


def elbo(log_w: Array) -> Array:
    """(1/k) sum_i log w_i: [k, B] -> [B]. More draws lower its variance, not its gap to log p(x)."""
    return jnp.mean(log_w, axis=0)


def iwae(log_w: Array) -> Array:
    """log (1/k) sum_i w_i: [k, B] -> [B] (Burda et al. 2016, eq. 8). Grows with k in expectation, to log p(x)."""
    return jax.scipy.special.logsumexp(log_w, axis=0) - jnp.log(log_w.shape[0])


def renyi(log_w: Array, alpha: float) -> Array:
    """1/(1 - alpha) log (1/k) sum_i w_i^(1 - alpha): [k, B] -> [B], alpha != 1 (Li & Turner 2016, eq. 10)."""
    return iwae((1 - alpha) * log_w) / (1 - alpha)


def bound(
    name: Bound,
    alpha: float,
    key: Array,
    log_joint: Callable[[Array], Array],
    z: Array,
    log_q: Array,
    log_q_path: Callable[[Array], Array],
) -> Array:
    """The bound [B] of k draws z [k, B, ...], whose derivative is the estimator that `name` says.

    log_joint   z -> log p(x, z) [k, B], for any number of draws
    log_q       log q(z|x) [k, B] as the draw knows it
    log_q_path  z -> log q(z|x) [k, B] with q's parameters under stop_gradient; called for the names in PATH alone (it inverts a
                posterior that is a flow)
    alpha       of renyi; key: of iwae_one
    """
    if name in PATH:
        log_w = log_joint(z) - log_q_path(z)
        if name == "dreg":
            # Known only after z, the weights come in by a second evaluation, which XLA merges with the first: the same operations.
            weight = jax.lax.stop_gradient(jax.nn.softmax(log_w, axis=0))
            z = scale_gradient(z, weight)
            log_w = log_joint(z) - log_q_path(z)
        return elbo(log_w) if name == "elbo_path" else iwae(log_w)
    log_w = log_joint(z) - log_q
    if name == "elbo":
        return elbo(log_w)
    if name == "renyi":
        return renyi(log_w, alpha)
    if name == "iwae":
        return iwae(log_w)
    value = jax.lax.stop_gradient(iwae(log_w))
    pick = jax.random.categorical(key, jax.lax.stop_gradient(log_w), axis=0)[None]  # [1, B]
    one = jnp.take_along_axis(z, pick.reshape(*pick.shape, *[1] * (z.ndim - 2)), axis=0)
    picked = (log_joint(one) - jnp.take_along_axis(log_q, pick, axis=0))[0]
    return value + picked - jax.lax.stop_gradient(picked)


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
