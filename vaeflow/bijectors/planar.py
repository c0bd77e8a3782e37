"""Planar flow (Rezende and Mohamed 2015), for posteriors: forward and its log_det are closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vaeflow.bijectors import amortised
from vaeflow.bijectors.core.layer import Bijection, Layer
from vaeflow.bijectors.core.solve import bisect, solve
from vaeflow.record import recorded


def _scalar(slope, a):
    """a + slope tanh(a) and its log-derivative, elementwise."""
    t = jnp.tanh(a)
    return a + slope * t, jnp.log1p(slope * (1 - t**2))


def _bracket(slope, y):
    return y - jnp.abs(slope), y + jnp.abs(slope)


@recorded
def planar() -> Layer:
    """x = z + u' tanh(a), a = w^T z + b; log |det dx/dz| = log(1 + (w^T u') (1 - tanh(a)^2)). Vectors [D], D >= 1.

    u' = u + (m(w^T u) - w^T u) w / |w|^2, so that w^T u' = m(w^T u) > -1 and the map is invertible (the paper's appendix A.1; here
    m(0) = 0, so that u = 0 is the identity and u' is bounded as w -> 0). u, w [D] and b come from the context (amortised.py).

    The inverse solves one increasing scalar equation, a + (w^T u') tanh(a) = w^T x + b; then z = x - u' tanh(a).
    """

    def shapes(d: int) -> amortised.Shapes:
        return {"u": (d,), "w": (d,), "b": ()}

    def init(key, x, context=None):
        amortised.needs_vectors("planar", x)
        d = x.shape[-1]
        keys = jax.random.split(key, 3)
        start = {"u": 0.01 * jax.random.normal(keys[0], (d,)), "w": jax.random.normal(keys[1], (d,)) / d**0.5, "b": jnp.zeros(())}
        return amortised.init(keys[2], context, start)

    def bijector(params, context=None, **_):
        def vectors(h):
            """(u', w, b, w^T u')."""
            u, w, b = amortised.values(params, shapes(h.shape[-1]), context, h.dtype).values()
            inner, square = jnp.sum(w * u, -1), jnp.sum(w**2, -1)
            slope = amortised.above_minus_one(inner)
            u = u + ((slope - inner) / jnp.where(square > 0, square, 1))[..., None] * w
            return u, w, b, slope

        def forward(z):
            u, w, b, slope = vectors(z)
            a = jnp.sum(w * z, -1) + b
            return z + u * jnp.tanh(a)[..., None], _scalar(slope, a)[1]

        def inverse(x):
            u, w, b, slope = vectors(x)
            y = jnp.sum(w * x, -1) + b
            a, log_slope = solve(_scalar, bisect(_scalar, _bracket, 0.0), 0.0, 2, slope, y)
            return x - u * jnp.tanh(a)[..., None], -log_slope

        return Bijection(forward, inverse, 1)

    return Layer(init, bijector)
