"""Minus a lower bound of log p(x) from k draws, in its forms: the value is the bound, the derivative the estimator that the kind names.

With log w_i = log p(x, z_i) - log q(z_i|x) and the normalised weights v_i = w_i / sum_j w_j:

    elbo_path  mean_i log w_i without the score of q: its expectation is 0, its variance is not ("sticking the landing", Roeder et al. 2017)
    iwae       log mean_i w_i (Burda et al. 2016); its gradient is sum_i v_i d log w_i
    iwae_one   the same with one draw i ~ v in place of the sum: k draws forward, ONE backward (Burda et al. 2016, section 3)
    iwae_path  the same as iwae without the score of q, whose expectation is not 0 for k > 1: biased for q, of low variance (Roeder
               et al. 2017)
    dreg       gradient of iwae for q by sum_i v_i^2 (d log w_i / dz_i) dz_i: unbiased, and its signal-to-noise does not fall with k
               (doubly reparameterised, Tucker et al. 2019); for p as in iwae
    renyi      1/(1 - alpha) log mean_i w_i^(1 - alpha) (Li & Turner 2016); alpha = 0 is iwae, alpha -> 1 the elbo; alpha < 0 is not a
               lower bound

The metric kl is the mean of log q(z|x) - log p(z) at the draws.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from vaeflow.build import Count, Range
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.objectives import bounds
from vaeflow.objectives.objective import Draws, Objective
from vaeflow.record import recorded

Several = Annotated[int, Range(2)]  # of one draw every bound is the elbo


@recorded
def elbo_path(*, k: Count = 1) -> Objective:
    """The ELBO without the score of q."""
    return _bound("elbo_path", k, lambda draws, key: bounds.elbo(_path_weights(draws, draws.z)), path=True)


@recorded
def iwae(*, k: Count = 5) -> Objective:
    """log mean_i w_i."""
    return _bound("iwae", k, lambda draws, key: bounds.iwae(_weights(draws)), bounds.iwae)


@recorded
def iwae_one(*, k: Several = 5) -> Objective:
    """iwae with the gradient of one draw i ~ v."""

    def estimate(draws, key):
        log_w = jax.lax.stop_gradient(_weights(draws))
        pick = jax.random.categorical(jax.random.fold_in(key, 1), log_w, axis=0)[None]  # [1, B]
        one = jnp.take_along_axis(draws.z, pick.reshape(*pick.shape, *[1] * (draws.z.ndim - 2)), axis=0)
        picked = (draws.log_x(one) + draws.log_z(one) - jnp.take_along_axis(draws.log_q, pick, axis=0))[0]
        return bounds.iwae(log_w) + picked - jax.lax.stop_gradient(picked)

    return _bound("iwae_one", k, estimate, bounds.iwae)


@recorded
def iwae_path(*, k: Several = 5) -> Objective:
    """iwae without the score of q."""
    return _bound("iwae_path", k, lambda draws, key: bounds.iwae(_path_weights(draws, draws.z)), bounds.iwae, path=True)


@recorded
def dreg(*, k: Several = 5) -> Objective:
    """iwae with the doubly reparameterised gradient."""

    def estimate(draws, key):
        # Known only after z, the weights come in by a second evaluation, which XLA merges with the first: the same operations.
        weight = jax.lax.stop_gradient(jax.nn.softmax(_path_weights(draws, draws.z), axis=0))
        return bounds.iwae(_path_weights(draws, bounds.scale_gradient(draws.z, weight)))

    return _bound("dreg", k, estimate, bounds.iwae, path=True)


@recorded
def renyi(*, alpha: Annotated[float, Range()], k: Count = 5) -> Objective:
    """1/(1 - alpha) log mean_i w_i^(1 - alpha), alpha != 1."""
    if alpha == 1:
        raise UserError("alpha=1.0 is invalid: the limit of 'renyi' there is the objective 'elbo'")
    value = functools.partial(bounds.renyi, alpha=alpha)
    return _bound("renyi", k, lambda draws, key: value(_weights(draws)), value)


def _bound(
    kind: str,
    k: int,
    estimate: Callable[[Draws, Array], Array],
    bound: Callable[[Array], Array] | None = None,
    path: bool = False,
) -> Objective:
    """Minus the mean of estimate(draws, key) [B]."""

    def loss(own, key, draws, step):
        del own, step
        total = -jnp.mean(estimate(draws, key))
        kl = jnp.mean(draws.log_q - draws.log_z(draws.z))
        return total, {"loss": total, "recon": -jnp.mean(draws.log_x(draws.z)), "kl": kl}

    return Objective(loss, k, bound=bound, path=path, kind=kind)


def _weights(draws: Draws) -> Array:
    """log w [k, B] with its whole gradient."""
    assert draws.log_q is not None
    return draws.log_x(draws.z) + draws.log_z(draws.z) - draws.log_q


def _path_weights(draws: Draws, z: Array) -> Array:
    """log w [k, B] at z, in which q's own parameters are constants."""
    return draws.log_x(z) + draws.log_z(z) - draws.log_q_path(z)
