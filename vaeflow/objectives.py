"""Training objectives as functions of log-weights, and the schedules of their coefficients as functions of the step.

A log-weight is one draw's log w = log p(x|z) + log p(z) - log q(z|x), z ~ q(z|x); draws are the LEADING axis: [k, B].
E[w] = p(x), so mean log w is a lower bound of log p(x) and log mean w a tighter one. Everything is in nats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from vaeflow.model import Array

BetaSchedule = Literal["constant", "linear", "cyclical"]


def elbo(log_w: Array) -> Array:
    """(1/k) sum_i log w_i: [k, B] -> [B]. More draws lower its variance, not its gap to log p(x)."""
    return jnp.mean(log_w, axis=0)


def iwae(log_w: Array) -> Array:
    """log (1/k) sum_i w_i: [k, B] -> [B] (Burda et al. 2016, eq. 8). Grows with k in expectation, to log p(x)."""
    return jax.scipy.special.logsumexp(log_w, axis=0) - jnp.log(log_w.shape[0])


def free_bits(kl: Array, floor: Array | float) -> Array:
    """sum_j max(floor, KL_j): groups' KL averaged over the batch [G] -> scalar (Kingma et al. 2016, eq. 15).

    A group below the floor has no gradient, so the optimiser gains nothing by pushing its KL to zero. The maximum is taken
    after the mean over the batch (over the device's part of it, on several devices). A floor of 0 is none: Monte Carlo
    estimates of a small KL are sometimes negative, and cutting them off would bias its gradient.
    """
    return jnp.sum(jnp.where(jnp.asarray(floor) > 0, jnp.maximum(kl, floor), kl))


def beta_schedule(name: BetaSchedule, *, start: float, end: float, steps: int, ramp: float) -> Callable[[Array | int], Array]:
    """step -> the weight of the KL term.

    constant   end
    linear     start + (end - start) min(1, step / steps)
    cyclical   the same with step / (ramp * steps), begun anew every `steps` steps: a fraction `ramp` of each cycle rises,
               the rest stays at `end` (Fu et al. 2019, eq. 6-7: M cycles in T steps are steps = T/M; ramp is their R)

    `steps` and `ramp` are Python numbers; start, end and the step may be traced.
    """

    def value(step):
        if name == "constant":
            return jnp.asarray(end, jnp.result_type(float))
        if name == "linear":
            fraction = jnp.asarray(step) / steps
        else:
            fraction = jnp.mod(jnp.asarray(step), steps) / (ramp * steps)
        return start + (end - start) * jnp.minimum(1.0, fraction)

    return value
