"""Elementwise layers without parameters, for the data end: logit and scale (event rank 0)."""

from __future__ import annotations

import math
from typing import Annotated

import jax
import jax.numpy as jnp

from vaeflow.bijectors.core.layer import Bijection, Layer
from vaeflow.build import Positive, Range
from vaeflow.record import recorded


@recorded
def logit(*, alpha: Annotated[float, Range(0, 0.5, open_high=True)] = 0.05) -> Layer:
    """Data in (0, 1): z = logit(alpha + (1 - 2 alpha) x), x = (sigmoid(z) - alpha) / (1 - 2 alpha) (RealNVP, section 4.1).

    The argument of the logit is clipped to [tiny, 1 - eps / 2] of its type, so that x = 0 and an x that was rounded to 1 give finite
    numbers. log |dx/dz| = log sigmoid(z) + log sigmoid(-z) - log(1 - 2 alpha).

    Args:
        alpha: above 0 it keeps z bounded at the ends; samples may then leave [0, 1] by alpha / (1 - 2 alpha).
    """
    log_factor = math.log1p(-2 * alpha)

    def forward(z):
        return (jax.nn.sigmoid(z) - alpha) / (1 - 2 * alpha), jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z) - log_factor

    def inverse(x):
        kind = jnp.finfo(x.dtype)
        p = jnp.clip(alpha + (1 - 2 * alpha) * x, kind.tiny, 1 - kind.epsneg)
        log_p, log_q = jnp.log(p), jnp.log1p(-p)
        return log_p - log_q, log_factor - log_p - log_q

    return _constant(Bijection(forward, inverse, 0))


@recorded
def scale(*, factor: Positive, shift: float = 0.0) -> Layer:
    """x = shift + factor * z, constants; log |dx/dz| = log factor.

    Args:
        factor: for example the number of grey values: dequantised data [0, levels) are then mapped to [0, 1).
        shift: the data of z = 0.
    """

    def forward(z):
        return shift + factor * z, jnp.full_like(z, math.log(factor))

    def inverse(x):
        return (x - shift) / factor, jnp.full_like(x, -math.log(factor))

    return _constant(Bijection(forward, inverse, 0))


def _constant(bijection: Bijection) -> Layer:
    return Layer(lambda key, x, context=None: {}, lambda params, **_: bijection)
