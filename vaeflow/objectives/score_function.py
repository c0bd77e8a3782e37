"""Gradients of bounds for latents that have no reparameterisation: score-function estimators, and reweighted wake-sleep.

Of k draws z_i ~ q(z|x): log_w_i = log p(x, z_i) - log q(z_i|x) and log_q_i = log q(z_i|x), both [k, B] and both differentiable
functions of the parameters; z itself has no gradient. Every function returns a surrogate [B] to be MAXIMISED: its value is the
bound (or 0, where it says so), its derivative the estimator. Everything is in nats.

    d E_q[f] = E_q[f d log q + d f]        so with a signal s_i in place of f:  mean_i s_i d log q_i + mean_i d f_i

unbiased for every s_i = f_i - b_i whose b_i does not depend on z_i. For f = log w the part -d log q of d f has mean zero: a caller
that holds log q inside log_w constant (stop_gradient) loses no information and some variance; then the gradient of q vanishes, draw
by draw, for a leave-one-out signal at q(z|x) = p(z|x). The multi-sample bound needs log_w with its whole gradient.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vaeflow.model import Array
from vaeflow.objectives.bounds import elbo, iwae


def silent(x: Array) -> Array:
    """x with its gradient and the value 0."""
    return x - jax.lax.stop_gradient(x)


def score(signal: Array, log_q: Array) -> Array:
    """signal [k, B] d log q [k, B] as the derivative of something of value 0, [k, B]; the signal is held constant."""
    return jax.lax.stop_gradient(signal) * silent(log_q)


def reinforce(log_w: Array, log_q: Array, baseline: Array | float = 0.0) -> Array:
    """The ELBO mean_i log w_i with the signals log w_i - b (Williams 1992), b [B] or 0; a network b(x) is NVIL's (Mnih & Gregor 2014),
    without its normalisation by a running variance. The baseline gets no gradient here: it learns from `baseline_loss`."""
    return elbo(log_w) + elbo(score(log_w - baseline, log_q))


def baseline_loss(log_w: Array, baseline: Array) -> Array:
    """mean_i (log w_i - b)^2, to be MINIMISED in b [B] alone; its minimum is E_q[log w]."""
    return jnp.mean((jax.lax.stop_gradient(log_w) - baseline) ** 2, axis=0)


def leave_one_out(log_w: Array, log_q: Array) -> Array:
    """The ELBO mean_i log w_i, k >= 2, each draw's baseline being the mean of the others:

    s_i = log w_i - 1/(k-1) sum_(j != i) log w_j = k/(k-1) (log w_i - mean_j log w_j)        (RLOO; Kool et al. 2019)
    """
    k = len(log_w)
    return elbo(log_w) + elbo(score(k / (k - 1) * (log_w - elbo(log_w)), log_q))


def vimco(log_w: Array, log_q: Array) -> Array:
    """The k-sample bound L = log 1/k sum_i w_i, k >= 2 (Mnih & Rezende 2016): sum_i s_i d log q_i + sum_i v_i d log w_i with the
    normalised weights v and a signal for each draw,

        s_i = L - log 1/k (u_i + sum_(j != i) w_j),        log u_i = 1/(k-1) sum_(j != i) log w_j

    in which the geometric mean of the other weights stands in for w_i. Memory k^2 B: a sum less one of its terms would cancel.
    """
    k = len(log_w)
    others = (jnp.sum(log_w, axis=0) - log_w) / (k - 1)
    replaced = jnp.where(jnp.eye(k, dtype=bool)[:, :, None], others, log_w[:, None])  # [j, i, B]: log w_j, or log u_i where j = i
    return iwae(log_w) + jnp.sum(score(iwae(log_w) - iwae(replaced), log_q), axis=0)


def wake_p(log_w: Array, log_q: Array) -> Array:
    """The k-sample bound, with the gradient sum_i v_i d log p(x, z_i) for p ALONE: unbiased for this bound (Bornschein & Bengio 2015)."""
    return iwae(log_w) + jnp.sum(score(jax.nn.softmax(log_w, axis=0), log_q), axis=0)


def wake_q(log_w: Array, log_q: Array) -> Array:
    """sum_i v_i d log q(z_i|x), of value 0: the wake phase of q (Bornschein & Bengio 2015). It follows -d KL(p(z|x) || q(z|x)), with a
    bias that falls with k, and no bound; k >= 2, as with one draw its mean is zero."""
    return jnp.sum(score(jax.nn.softmax(log_w, axis=0), log_q), axis=0)


def sleep_q(log_q: Array) -> Array:
    """d log q(z|x), of value 0, at samples (x, z) of the model, which get no gradient: log_q [...] -> [...]. Its mean is exactly
    -d E_p(x)[KL(p(z|x) || q(z|x))], over the model's x in place of the data's (Hinton et al. 1995)."""
    return silent(log_q)
