"""Sinh-arcsinh map (Jones and Pewsey 2009, "Sinh-arcsinh distributions"): skewness and tail weight of each dimension."""

from __future__ import annotations

import math

import jax.numpy as jnp

from vaeflow.bijectors.core.layer import Bijection, Layer

_CAP = 1.0  # of log-tails and skews: no parameter overflows


def sinh_arcsinh() -> Layer:
    """x = sinh(t (arcsinh(z) + s)), elementwise; log |dx/dz| = log t + log cosh(t (arcsinh(z) + s)) - log sqrt(1 + z^2).

    s skews and t sets the tails: t > 1 heavier than those of z, t < 1 lighter. s and log t are [D], D the last axis, trained, and bounded
    to (-1, 1) by tanh. It starts as the identity.
    """

    def init(key, x, context=None):
        del key, context
        return {"skew": jnp.zeros(x.shape[-1]), "log_tail": jnp.zeros(x.shape[-1])}

    def bijector(params, **_):
        def values(h):
            skew, log_tail = (_CAP * jnp.tanh(params[name].astype(h.dtype) / _CAP) for name in ("skew", "log_tail"))
            return skew, log_tail

        def log_slope(z, u, log_tail):
            """log |dx/dz| at x = sinh(u)."""
            return log_tail + jnp.logaddexp(u, -u) - math.log(2) - 0.5 * jnp.log1p(z**2)

        def forward(z):
            skew, log_tail = values(z)
            u = jnp.exp(log_tail) * (jnp.arcsinh(z) + skew)
            return jnp.sinh(u), log_slope(z, u, log_tail)

        def inverse(x):
            skew, log_tail = values(x)
            u = jnp.arcsinh(x)
            z = jnp.sinh(jnp.exp(-log_tail) * u - skew)
            return z, -log_slope(z, u, log_tail)

        return Bijection(forward, inverse, 0)

    return Layer(init, bijector)
