"""What is added to, or replaces, the KL term of a VAE's loss. Everything is in nats per example."""

from __future__ import annotations

import jax.numpy as jnp

from vaeflow.model import Array


def free_bits(kl: Array, floor: Array | float) -> Array:
    """sum_j max(floor, KL_j): groups' KL averaged over the batch [G] -> scalar (Kingma et al. 2016, eq. 15).

    A group below the floor has no gradient, so the optimiser gains nothing by pushing its KL to zero. The maximum is taken
    after the mean over the batch (over the device's part of it, on several devices). A floor of 0 is none: Monte Carlo
    estimates of a small KL are sometimes negative, and cutting them off would bias its gradient.
    """
    return jnp.sum(jnp.where(jnp.asarray(floor) > 0, jnp.maximum(kl, floor), kl))
