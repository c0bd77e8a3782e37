"""What is added to the loss of a VAE, or takes the place of its KL term. Everything is in nats per example but for the MMD.

Estimates from a batch of draws z_i ~ q(z|x_i), i = 1 .. B; on several devices from each one's share.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.model import Array


def free_bits(kl: Array, floor: Array | float) -> Array:
    """sum_j max(floor, KL_j): groups' KL averaged over the batch [G] -> scalar (Kingma et al. 2016, eq. 15).

    A group below the floor has no gradient, so the optimiser gains nothing by pushing its KL to zero. The maximum is taken
    after the mean over the batch (over the device's part of it, on several devices). A floor of 0 is none: Monte Carlo
    estimates of a small KL are sometimes negative, and cutting them off would bias its gradient.
    """
    return jnp.sum(jnp.where(jnp.asarray(floor) > 0, jnp.maximum(kl, floor), kl))


def capacity(kl: Array, target: Array | float) -> Array:
    """|KL - C|: the KL is held at C nats, which a schedule raises (Burgess et al. 2018, eq. 8; its gamma is the weight of this term)."""
    return jnp.abs(kl - target)


class Decomposition(NamedTuple):
    """E_x KL(q(z|x) || p(z)) = mutual_information + total_correlation + dimension_kl, of which the first two are, with the aggregate
    posterior q(z) = E_x q(z|x),

        mutual_information  E log q(z|x) - log q(z)              total_correlation  E log q(z) - sum_d log q(z_d)
        dimension_kl        sum_d KL(q(z_d) || p(z_d))           for a prior that factorises
    """

    mutual_information: Array
    total_correlation: Array
    dimension_kl: Array


def decomposition(z: Array, mean: Array, std: Array, log_prior: Array) -> Decomposition:
    """The three terms of the KL (Chen et al. 2018, eq. 2) for q(z|x_i) = N(mean_i, diag(std_i)^2): z, mean, std, log_prior [B, D].

    The batch stands for the data set: q(z_i) = (1/B) sum_j q(z_i|x_j). The paper's minibatch weighting differs by constants, which have
    no gradient. z_i is a draw of the component i itself, so the mutual information is at most log B.
    """
    log_q = jax.scipy.stats.norm.logpdf(z[:, None], mean, std)  # [B, B, D]: z_i under q(.|x_j)
    count = jnp.log(len(z))
    joint = jax.nn.logsumexp(log_q.sum(-1), axis=1) - count  # log q(z_i)
    product = (jax.nn.logsumexp(log_q, axis=1) - count).sum(-1)  # sum_d log q(z_id)
    own = jnp.diagonal(log_q.sum(-1))
    return Decomposition(jnp.mean(own - joint), jnp.mean(joint - product), jnp.mean(product - log_prior.sum(-1)))


def mmd(a: Array, b: Array) -> Array:
    """Squared maximum mean discrepancy of the draws a [N, D] and b [M, D], the unbiased estimate (Gretton et al. 2012, eq. 3), with the
    kernel exp(-|u - v|^2 / (2 D)) of Zhao et al. 2017 (InfoVAE), D the variance that fits draws of N(0, I). May be negative."""
    d = a.shape[-1]

    def kernel(u, v):
        square = jnp.sum(u**2, -1)[:, None] + jnp.sum(v**2, -1) - 2 * u @ v.T
        return jnp.exp(-jnp.maximum(square, 0.0) / (2 * d))

    def within(u):  # without the pairs (i, i), whose kernel is 1
        n = len(u)
        return (jnp.sum(kernel(u, u)) - n) / (n * (n - 1))

    return within(a) + within(b) - 2 * jnp.mean(kernel(a, b))


def critic_loss(prior: Array, posterior: Array) -> Array:
    """Cross-entropy of a critic's logits on draws of the prior (true) and of the aggregate posterior (false): its minimum is at
    logit(z) = log p(z) - log q(z) (Makhzani et al. 2016)."""
    return jnp.mean(jax.nn.softplus(-prior)) + jnp.mean(jax.nn.softplus(posterior))


def fooling_loss(posterior: Array) -> Array:
    """What the encoder minimises against the critic: the cross-entropy of its draws' logits with the label `prior`."""
    return jnp.mean(jax.nn.softplus(-posterior))
