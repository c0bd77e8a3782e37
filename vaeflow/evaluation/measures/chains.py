"""One example's latent as densities of z, and the mean of importance weights: what AIS and the HMC estimator share.

z [*event] is one latent vector of ONE example: a chain is written for one z, a vmap makes many of it, and another one goes over the
examples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from vaeflow.hmc import LogDensity
from vaeflow.model import Array, Batch, Latent, Params
from vaeflow.objectives import iwae


class Target(NamedTuple):
    """p(z), p(x|z) and q(z|x) of one example, as functions of one z [*event] -> [] nats; `draw_*` take a key."""

    log_prior: LogDensity
    log_likelihood: LogDensity
    log_q: LogDensity
    draw_prior: Callable[[Array], Array]
    draw_q: Callable[[Array], Array]

    def log_joint(self, z: Array) -> Array:
        """log p(x, z)."""
        return self.log_prior(z) + self.log_likelihood(z)


def target(latent: Latent, params: Params, batch: Batch, shape: tuple[int, ...]) -> Target:
    """The target of a batch of one, with z of `shape`. The encoder runs once, however many chains there are."""
    x, context = batch["x"], batch.get("context")
    q, p = latent.posterior(params, x, context), latent.prior(params, context)
    return Target(
        log_prior=lambda z: p.log_prob(z[None])[0],
        log_likelihood=lambda z: latent.likelihood(params, z[None], context).log_prob(x)[0],
        log_q=lambda z: q.log_prob(z[None])[0],
        draw_prior=lambda key: p.sample(seed=key).reshape(shape),
        draw_q=lambda key: q.sample(seed=key)[0],
    )


def log_mean(log_w: Array) -> tuple[Array, Array, Array]:
    """(log (1/C) sum_c w_c, effective number (sum w)^2 / sum w^2, standard error of the first) of C independent weights [C].

    The error is that of the delta method: the standard deviation of w_c / mean(w), over sqrt(C).
    """
    w = jnp.exp(log_w - log_w.max())
    return iwae(log_w), w.sum() ** 2 / (w**2).sum(), jnp.std(w / w.mean(), ddof=1) / jnp.sqrt(len(w))
