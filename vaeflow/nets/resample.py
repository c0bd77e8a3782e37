"""Images of twice and of half the size, without parameters: h [..., H, W, C].

    half_mean     means of 2x2 pixels                     double_nearest   every pixel four times
    half_fir      FIR filter [1, 3, 3, 1] / 8, stride 2   double_fir       zeros between the pixels, then [1, 3, 3, 1] / 4

The filter is applied along each of the two axes, with zeros around the image (Zhang 2019, 1904.11486; Karras et al. 2019, StyleGAN2):

    half_fir      y_i  = (x_(2i-1) + 3 x_(2i) + 3 x_(2i+1) + x_(2i+2)) / 8
    double_fir    y_2i = (x_(i-1) + 3 x_i) / 4,    y_(2i+1) = (3 x_i + x_(i+1)) / 4

They are sums of slices: XLA's CPU compiler has no fast kernel for convolutions of one channel at a time.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vaeflow.model import Array

TAPS = (1 / 8, 3 / 8, 3 / 8, 1 / 8)


def half_mean(h: Array) -> Array:
    """[..., 2 H, 2 W, C] -> [..., H, W, C]."""
    *lead, rows, columns, channels = h.shape
    return h.reshape(*lead, rows // 2, 2, columns // 2, 2, channels).mean((-4, -2))


def double_nearest(h: Array) -> Array:
    """[..., H, W, C] -> [..., 2 H, 2 W, C]."""
    return h.repeat(2, -3).repeat(2, -2)


def half_fir(h: Array) -> Array:
    """[..., 2 H, 2 W, C] -> [..., H, W, C]."""
    return filtered(h, 2, 1)


def double_fir(h: Array) -> Array:
    """[..., H, W, C] -> [..., 2 H, 2 W, C]."""
    for axis in (h.ndim - 3, h.ndim - 2):
        size, x = h.shape[axis], _padded(h, axis, 1)
        before, here, after = (jax.lax.slice_in_dim(x, i, i + size, axis=axis) for i in range(3))
        pairs = jnp.stack([(before + 3 * here) / 4, (3 * here + after) / 4], axis + 1)
        h = pairs.reshape(*h.shape[:axis], 2 * size, *h.shape[axis + 1 :])
    return h


def filtered(h: Array, stride: int, pad: int) -> Array:
    """The filter [1, 3, 3, 1] / 8 on h with `pad` zeros on each side: H -> (H + 2 pad - 4) // stride + 1, the same for W."""
    for axis in (h.ndim - 3, h.ndim - 2):
        x = _padded(h, axis, pad)
        reach = x.shape[axis] - len(TAPS) + 1
        taps = (tap * jax.lax.slice_in_dim(x, i, i + reach, stride, axis) for i, tap in enumerate(TAPS))
        h = sum(taps, jnp.zeros((), h.dtype))
    return h


def _padded(h: Array, axis: int, pad: int) -> Array:
    return jnp.pad(h, [(pad, pad) if i == axis else (0, 0) for i in range(h.ndim)])
