"""Convolutions of images whose gradients are fast inside a loop too.

    y[i] = sum_j x[s i + j - lo] K[j]     per axis, stride s, `lo` zeros before the image (XLA correlates: no flip)

XLA's CPU compiler has fast kernels only for convolutions in one layout (images NHWC, kernels HWIO). It brings others into that
layout in a program's outermost computation alone, not in the body of a scan, where all of training happens; and the gradients
that JAX derives have other layouts: in the body of a loop they take 3 to 25 times as long. So they are written out here:

    dx = (dy dilated by s) * (K flipped, inputs and outputs exchanged)        dK = (x with examples as channels) * (dy dilated)

On other platforms they are JAX's own, which cuDNN and the TPU compiler know. Reverse mode only, as any custom_vjp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vaeflow.model import Array

Pads = tuple[tuple[int, int], tuple[int, int]]
_NAMES = ("NHWC", "HWIO", "NHWC")


def convolve(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    """x [B, H, W, C], kernel [h, w, C, N] of the same dtype, zeros `pads` around the image -> [B, H', W', N]."""
    return _convolve(x, kernel, stride, pads)  # type: ignore[return-value]


def _plain(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_NAMES)


def _forward(x: Array, kernel: Array, stride: int, pads: Pads) -> tuple[Array, tuple[Array, Array]]:
    return _plain(x, kernel, stride, pads), (x, kernel)


def _backward(stride: int, pads: Pads, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    def derived(x: Array, kernel: Array, dy: Array) -> tuple[Array, Array]:
        return jax.vjp(lambda x, kernel: _plain(x, kernel, stride, pads), x, kernel)[1](dy)

    def written_out(x: Array, kernel: Array, dy: Array) -> tuple[Array, Array]:
        around, beside = [], []
        for size, taps, count, (low, _) in zip(x.shape[1:3], kernel.shape, dy.shape[1:3], pads, strict=False):
            reach = (count - 1) * stride + 1  # of the dilated dy
            around.append((taps - 1 - low, size - reach + low))
            beside.append((low, taps - 1 + reach - size - low, 0))
        flipped, dilation = kernel[::-1, ::-1].swapaxes(2, 3), (stride, stride)
        dx = jax.lax.conv_general_dilated(dy, flipped, (1, 1), around, lhs_dilation=dilation, dimension_numbers=_NAMES)
        # Padded apart: XLA would exchange the operands of a convolution whose kernel, here dy, is larger than its image.
        x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *beside, (0, 0, 0))).transpose(3, 1, 2, 0)
        dy = dy.transpose(1, 2, 0, 3)
        dk = jax.lax.conv_general_dilated(x, dy, (1, 1), "VALID", rhs_dilation=dilation, dimension_numbers=_NAMES)
        return dx, dk.transpose(1, 2, 0, 3)

    return jax.lax.platform_dependent(*saved, dy, cpu=written_out, default=derived)


_convolve = jax.custom_vjp(_plain, nondiff_argnums=(2, 3))
_convolve.defvjp(_forward, _backward)


class Convolution(nn.Module):
    """linen's Conv with SAME padding (and its parameters: kernel [k, k, C, N], bias [N]) over `convolve`.

    x [..., H, W, C] -> [..., ceil(H/s), ceil(W/s), N], in `dtype`, or None: in the promoted one of x and the parameters.
    """

    features: int
    kernel: int
    stride: int
    dtype: Any
    kernel_init: Any
    bias_init: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.kernel_init, (self.kernel, self.kernel, x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        dtype = self.dtype or jnp.result_type(x, kernel)
        y = convolve(images(x).astype(dtype), kernel.astype(dtype), self.stride, same(x.shape[-3:-1], self.kernel, self.stride))
        return y.reshape(*x.shape[:-3], *y.shape[1:]) + bias.astype(dtype)


def images(x: Array) -> Array:
    """[..., H, W, C] -> [B, H, W, C]."""
    return x.reshape(-1, *x.shape[-3:])


def same(size: Sequence[int], kernel: int, stride: int) -> Pads:
    """The zeros (before, after) per axis of SAME padding: the output has ceil(size / stride) pixels."""
    rows, columns = jax.lax.padtype_to_pads(size, (kernel, kernel), (stride, stride), "SAME")
    return rows, columns
