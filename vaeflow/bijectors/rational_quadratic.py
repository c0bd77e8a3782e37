"""Monotone rational-quadratic splines (Durkan, Bekasov, Murray, Papamakarios 2019; Gregory and Delbourgo 1982).

K bins between the knots (x_i, y_i), i = 0..K, of [-B, B]^2, with slopes d_i at the knots; outside the identity (linear tails, so
d_0 = d_K = 1). In a bin of width w, height h, s = h/w, xi = (x - x_i)/w:

    y = y_i + h (s xi^2 + d_i xi (1 - xi)) / (s + (d_i+1 + d_i - 2 s) xi (1 - xi))
    dy/dx = s^2 (d_i+1 xi^2 + 2 s xi (1 - xi) + d_i (1 - xi)^2) / (s + (d_i+1 + d_i - 2 s) xi (1 - xi))^2

The inverse solves a quadratic for xi in the form 2c / (-b - sqrt(b^2 - 4ac)), which does not cancel.

Bins lie on the LEADING axis, a bin is found by comparisons with the inner knots and its six numbers are selected by a one-hot
sum: no gather, whose gradient is a slow scatter. Inputs are clipped to [-B, B] before the search, the discriminant is kept
positive, and only then the tails are put in by `where`: no branch that is not taken makes a NaN gradient.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from vaeflow.bijectors.transformer import Transformer
from vaeflow.errors import UserError
from vaeflow.model import Array


def rational_quadratic(bins: int, bound: float, min_width: float, min_height: float, min_slope: float) -> Transformer:
    """Splines on [-bound, bound]; theta [3 bins - 1, ...]: widths and heights as logits, inner slopes before a softplus.

    min_width, min_height are fractions of 2 * bound, so at most 1 / bins; min_slope < 1.
    """
    for name, least in (("min_width", min_width), ("min_height", min_height)):
        if least * bins >= 1:
            raise UserError(f"{name}={least} is impossible with bins={bins}; it must be < {1 / bins:g}")

    def forward(theta, z):
        return _tails(z, bound, lambda inner: _evaluate(_knots(theta), inner))

    def inverse(theta, x):
        return _tails(x, bound, lambda inner: _invert(_knots(theta), inner))

    def _knots(theta):
        width, height = _positions(theta[:bins], min_width, bound), _positions(theta[bins : 2 * bins], min_height, bound)
        return width, height, _slopes(theta[2 * bins :], min_slope)

    return Transformer(3 * bins - 1, forward, inverse)


def _positions(logits: Array, least: float, bound: float) -> Array:
    """[K, ...] -> knots [K + 1, ...] from -bound to bound, at least 2 * bound * least apart."""
    sizes = least + (1 - least * logits.shape[0]) * jax.nn.softmax(logits, axis=0)
    inner = 2 * bound * jnp.cumsum(sizes[:-1], axis=0) - bound
    end = jnp.full_like(logits[:1], bound)
    return jnp.concatenate([-end, inner, end])


def _slopes(raw: Array, least: float) -> Array:
    """[K - 1, ...] -> slopes at the knots [K + 1, ...], 1 at both ends, and 1 where raw = 0."""
    one = jnp.ones_like(raw[:1])
    return jnp.concatenate([one, least + jax.nn.softplus(raw + math.log(math.expm1(1 - least))), one])


def _tails(x: Array, bound: float, spline) -> tuple[Array, Array]:
    inside = jnp.abs(x) < bound
    y, log_slope = spline(jnp.clip(x, -bound, bound))
    return jnp.where(inside, y, x), jnp.where(inside, log_slope, 0)


def _bin(x: Array, by: Array, knots: tuple[Array, Array, Array]) -> tuple[Array, ...]:
    """(x_i, w, y_i, h, d_i, d_i+1) of the bin of x [...], found in the knots `by` [K + 1, ...]."""
    xs, ys, slopes = knots
    above = x >= by[1:-1]  # [K - 1, ...], non-increasing along the leading axis
    ends = jnp.ones_like(above[:1])
    chosen = jnp.concatenate([ends, above]) & ~jnp.concatenate([above, ~ends])

    def select(values):
        return jnp.sum(jnp.where(chosen, values, 0), axis=0)

    return (
        select(xs[:-1]),
        select(jnp.diff(xs, axis=0)),
        select(ys[:-1]),
        select(jnp.diff(ys, axis=0)),
        select(slopes[:-1]),
        select(slopes[1:]),
    )


def _log_slope(xi: Array, s: Array, d0: Array, d1: Array) -> Array:
    both = xi * (1 - xi)
    numerator = d1 * xi**2 + 2 * s * both + d0 * (1 - xi) ** 2
    return 2 * jnp.log(s) + jnp.log(numerator) - 2 * jnp.log(s + (d1 + d0 - 2 * s) * both)


def _evaluate(knots: tuple[Array, Array, Array], x: Array) -> tuple[Array, Array]:
    x0, w, y0, h, d0, d1 = _bin(x, knots[0], knots)
    s, xi = h / w, (x - x0) / w
    both = xi * (1 - xi)
    y = y0 + h * (s * xi**2 + d0 * both) / (s + (d1 + d0 - 2 * s) * both)
    return y, _log_slope(xi, s, d0, d1)


def _invert(knots: tuple[Array, Array, Array], y: Array) -> tuple[Array, Array]:
    x0, w, y0, h, d0, d1 = _bin(y, knots[1], knots)
    s, up = h / w, y - y0
    mixed = up * (d1 + d0 - 2 * s)
    a, b, c = h * (s - d0) + mixed, h * d0 - mixed, -s * up
    root = jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, jnp.finfo(b.dtype).tiny))
    xi = 2 * c / (-b - root)
    return x0 + w * xi, -_log_slope(xi, s, d0, d1)
