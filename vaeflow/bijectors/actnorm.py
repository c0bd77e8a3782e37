"""ActNorm (Kingma and Dhariwal 2018, "Glow"): a trained affine map per channel, initialised from the first batch."""

from __future__ import annotations

import jax.numpy as jnp

from vaeflow.bijectors.core.layer import Bijection, Layer
from vaeflow.bijectors.core.scalar_map import bounded, unbounded
from vaeflow.model import Array
from vaeflow.record import recorded


def moments(x: Array) -> tuple[Array, Array]:
    """(mean, variance) [D] of x [..., D] over all axes but the last; biased variance."""
    axes = tuple(range(x.ndim - 1))
    return jnp.mean(x, axis=axes), jnp.var(x, axis=axes)


def affine_map(shift: Array, log_scale: Array) -> Bijection:
    """x = z * exp(log_scale) + shift over the last axis; log_det = sum(log_scale) (event rank 1)."""

    def forward(z):
        s = log_scale.astype(z.dtype)
        return z * jnp.exp(s) + shift.astype(z.dtype), jnp.broadcast_to(jnp.sum(s), z.shape[:-1])

    def inverse(x):
        s = log_scale.astype(x.dtype)
        return (x - shift.astype(x.dtype)) * jnp.exp(-s), jnp.broadcast_to(-jnp.sum(s), x.shape[:-1])

    return Bijection(forward, inverse, 1)


@recorded
def actnorm() -> Layer:
    """x = z * exp(s) + shift, s = bounded(log_scale), both [D] and trained; D the last axis (an image's channels,
    shared by all pixels).

    The first batch has zero mean and unit variance at the latent end. A component that is constant in that batch keeps its
    scale: dividing by a standard deviation of zero would blow up every later batch.
    """

    def init(key, x, context=None):
        del key, context
        mean, variance = moments(x.astype(jnp.float32))
        varies = variance > 1e-12 + 1e-10 * mean**2  # below that the variance is rounding
        return {"shift": mean, "log_scale": unbounded(jnp.where(varies, 0.5 * jnp.log(jnp.where(varies, variance, 1)), 0))}

    def bijector(params, **_):
        return affine_map(params["shift"], bounded(params["log_scale"]))

    return Layer(init, bijector)
