"""Monotone rational-quadratic splines (Durkan, Bekasov, Murray, Papamakarios 2019; Gregory and Delbourgo 1982).

K bins between the knots (x_i, y_i), i = 0..K, of [-B, B]^2, with slopes d_i at the knots; outside the identity (linear tails, so
d_0 = d_K = 1). In a bin of width w, height h, s = h/w, xi = (x - x_i)/w:

    y = y_i + h (s xi^2 + d_i xi (1 - xi)) / (s + (d_i+1 + d_i - 2 s) xi (1 - xi))
    dy/dx = s^2 (d_i+1 xi^2 + 2 s xi (1 - xi) + d_i (1 - xi)^2) / (s + (d_i+1 + d_i - 2 s) xi (1 - xi))^2

The inverse solves a quadratic for xi in the form 2c / (-b - sqrt(b^2 - 4ac)), which does not cancel.

Bins lie on the LEADING axis, and a bin is found by comparisons with the inner knots. Its six numbers are sums over bins under a mask
(x_i is -B plus the widths of the bins below), so that their gradients are masked broadcasts: no gather, whose gradient is a slow scatter,
and no gradient through the knots' running sums, which only say which bin it is. Inputs are clipped to [-B, B] before the search, the
discriminant is kept positive, and only then the tails are put in by `where`: no branch that is not taken makes a NaN gradient. The knots
and x_i are sums in another order and round differently, so xi is clipped to [0, 1]: just outside, where slopes are steep, the numerator of
dy/dx would be negative.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from vaeflow.bijectors.core.scalar_map import ScalarMap
from vaeflow.errors import UserError
from vaeflow.model import Array


def rational_quadratic(bins: int, bound: float, min_width: float, min_height: float, min_slope: float) -> ScalarMap:
    """Splines on [-bound, bound]; theta [3 bins - 1, ...]: widths and heights as logits, inner slopes before a softplus.

    min_width, min_height are fractions of 2 * bound, so at most 1 / bins; min_slope < 1.
    """
    for name, least in (("min_width", min_width), ("min_height", min_height)):
        if least * bins >= 1:
            raise UserError(f"{name}={least} is invalid with bins={bins}; it must be < {1 / bins:g}")

    def forward(theta, z):
        return _tails(z, bound, lambda inner: _evaluate(inner, *_bin(inner, *_sizes(theta), by=0, bound=bound)))

    def inverse(theta, x):
        return _tails(x, bound, lambda inner: _invert(inner, *_bin(inner, *_sizes(theta), by=1, bound=bound)))

    def _sizes(theta):
        """Widths and heights [K, ...] of the bins, which add up to 2 bound; slopes [K - 1, ...] at the inner knots, 1 for theta = 0."""
        width, height = (
            2 * bound * (least + (1 - least * bins) * jax.nn.softmax(logits, axis=0))
            for logits, least in ((theta[:bins], min_width), (theta[bins : 2 * bins], min_height))
        )
        slopes = min_slope + jax.nn.softplus(theta[2 * bins :] + math.log(math.expm1(1 - min_slope)))
        return width, height, slopes

    # In a scan, the backward pass computes everything again from theta and z: that is a few fused loops, where keeping the dozens of small
    # arrays in between takes three times as long. (Outside one the compiler may keep them all the same; it is no matter of memory.)
    again = functools.partial(jax.checkpoint, prevent_cse=False)
    return ScalarMap(3 * bins - 1, again(forward), again(inverse))


def _tails(x: Array, bound: float, spline) -> tuple[Array, Array]:
    inside = jnp.abs(x) < bound
    y, log_slope = spline(jnp.clip(x, -bound, bound))
    return jnp.where(inside, y, x), jnp.where(inside, log_slope, 0)


def _bin(value: Array, width: Array, height: Array, slopes: Array, by: int, bound: float) -> tuple[Array, ...]:
    """(x_i, w, y_i, h, d_i, d_i+1) [...] of the bin that holds `value` [...], an x (by=0) or a y (by=1)."""
    below = jax.lax.stop_gradient(value) >= _knots((width, height)[by], bound)  # [K - 1, ...]: bin k lies below, its upper knot passed
    ends = jnp.ones_like(below[:1])
    chosen = jnp.concatenate([ends, below]) & ~jnp.concatenate([below, ~ends])

    def total(mask, values):
        return jnp.sum(jnp.where(mask, values, 0), axis=0)

    start, up = (total(below, sizes[:-1]) - bound for sizes in (width, height))
    low, high = total(chosen[1:], slopes) + chosen[0], total(chosen[:-1], slopes) + chosen[-1]
    return start, total(chosen, width), up, total(chosen, height), low, high


def _knots(sizes: Array, bound: float) -> Array:
    """[K, ...] -> the inner knots [K - 1, ...], without a gradient. Added one by one: XLA's cumsum takes several times as long."""
    rows = jax.lax.stop_gradient(sizes[:-1])
    knots = [rows[0] - bound]
    for row in rows[1:]:
        knots.append(knots[-1] + row)
    return jnp.stack(knots)


def _within(value: Array, low: Array | int, high: Array | int) -> Array:
    """value, moved into [low, high] where rounding has left it; the gradient is that of value."""
    return value + jax.lax.stop_gradient(jnp.clip(value, low, high) - value)


def _log_slope(xi: Array, s: Array, d0: Array, d1: Array) -> Array:
    both = xi * (1 - xi)
    numerator = d1 * xi**2 + 2 * s * both + d0 * (1 - xi) ** 2
    return 2 * jnp.log(s) + jnp.log(numerator) - 2 * jnp.log(s + (d1 + d0 - 2 * s) * both)


def _evaluate(x: Array, x0: Array, w: Array, y0: Array, h: Array, d0: Array, d1: Array) -> tuple[Array, Array]:
    s, xi = h / w, _within((x - x0) / w, 0, 1)
    both = xi * (1 - xi)
    y = y0 + h * (s * xi**2 + d0 * both) / (s + (d1 + d0 - 2 * s) * both)
    return y, _log_slope(xi, s, d0, d1)


def _invert(y: Array, x0: Array, w: Array, y0: Array, h: Array, d0: Array, d1: Array) -> tuple[Array, Array]:
    s, up = h / w, _within(y - y0, 0, h)
    mixed = up * (d1 + d0 - 2 * s)
    a, b, c = h * (s - d0) + mixed, h * d0 - mixed, -s * up
    root = jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, jnp.finfo(b.dtype).tiny))
    xi = _within(2 * c / (-b - root), 0, 1)
    return x0 + w * xi, -_log_slope(xi, s, d0, d1)
