"""Radial flow (Rezende and Mohamed 2015), for posteriors: closed forms in both directions."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vaeflow.bijectors import amortised
from vaeflow.bijectors.core.layer import Bijection, Layer
from vaeflow.model import Array
from vaeflow.record import recorded


def _norm(h: Array) -> Array:
    """|h| over the last axis, with the gradient 0 at h = 0."""
    square = jnp.sum(h**2, -1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


@recorded
def radial() -> Layer:
    """x = c + (z - c) (1 + beta / (alpha + r)), r = |z - c|. Vectors [D], D >= 1.

    log |det dx/dz| = (D - 1) log(1 + beta / (alpha + r)) + log(1 + alpha beta / (alpha + r)^2)

    alpha > 0 and beta > -alpha make it invertible (the paper's appendix A.2): beta = alpha m(raw), m > -1, m(0) = 0. The center c [D],
    alpha and beta come from the context (amortised.py).

    The inverse: R = |x - c| = r (1 + beta / (alpha + r)) is a quadratic equation for r, of which r^2 + h r - alpha R = 0 with
    h = alpha + beta - R has one root that is not negative.
    """

    def shapes(d: int) -> amortised.Shapes:
        return {"center": (d,), "alpha": (), "beta": ()}

    def init(key, x, context=None):
        amortised.needs_vectors("radial", x)
        keys = jax.random.split(key, 3)
        start = {
            "center": jax.random.normal(keys[0], x.shape[-1:]),
            "alpha": jnp.zeros(()),
            "beta": 0.01 * jax.random.normal(keys[1], ()),
        }
        return amortised.init(keys[2], context, start)

    def bijector(params, context=None, **_):
        def numbers(h):
            center, raw_alpha, raw_beta = amortised.values(params, shapes(h.shape[-1]), context, h.dtype).values()
            alpha = amortised.positive(raw_alpha)
            return center, alpha, alpha * amortised.above_minus_one(raw_beta)

        def log_det(d, alpha, beta, r):
            return (d - 1) * jnp.log1p(beta / (alpha + r)) + jnp.log1p(alpha * beta / (alpha + r) ** 2)

        def forward(z):
            center, alpha, beta = numbers(z)
            r = _norm(z - center)
            return z + (beta / (alpha + r))[..., None] * (z - center), log_det(z.shape[-1], alpha, beta, r)

        def inverse(x):
            center, alpha, beta = numbers(x)
            far = _norm(x - center)
            h = alpha + beta - far
            root = jnp.sqrt(h**2 + 4 * alpha * far)
            # The two forms of the root: neither subtracts numbers of about the same size.
            r = jnp.where(h > 0, 2 * alpha * far / jnp.where(h > 0, h + root, 1), (root - h) / 2)
            return center + ((alpha + r) / (alpha + r + beta))[..., None] * (x - center), -log_det(x.shape[-1], alpha, beta, r)

        return Bijection(forward, inverse, 1)

    return Layer(init, bijector)
