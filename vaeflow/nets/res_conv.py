"""Residual convolutional networks, image -> vector (`res_conv`) and vector -> image (`res_deconv`): the VAE's encoder and decoder of
Durkan, Bekasov, Murray, Papamakarios (2019), "Neural spline flows", without their dropout (0 for MNIST). f is the activation; of two kinds
of blocks one keeps the shape, the other changes the resolution by the stride and the channels from n to m:

    h + conv_n(f(conv_n(f(h))))        resample_m(h) + resample_m(f(conv_n(f(h))))

Images are [..., H, W, C]. Padding is SAME: a stride s maps H to ceil(H / s), and upwards the image is cropped to that size again.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vaeflow.build import Count
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.nets.conv import Convolutional, UpConv, image_out, needs_image
from vaeflow.nets.convolve import Convolution
from vaeflow.nets.net import Activation, Dtype, Net, compute_dtype, flatten
from vaeflow.record import recorded


@recorded
def res_conv(
    *, channels: tuple[Count, ...], kernel: Count = 3, stride: Count = 2, activation: Activation = "relu", dtype: Dtype = "float32"
) -> Net:
    """Encoder: a 1x1 convolution; for each level a block that keeps the shape, then one that changes it; f; a dense head of any shape.

    Args:
        channels: channels[0] of the 1x1 convolution, then one number for each level.
        kernel: height and width of the blocks' kernels.
        stride: of the block that changes the shape, at every level.
        activation: f.
        dtype: of the computation; parameters are float32.
    """
    _check("res_conv", channels)

    def module(out: tuple[int, ...], event_ndims: int = 3, zero_head: bool = False) -> nn.Module:
        needs_image("res_conv", event_ndims)
        return ResConv(tuple(channels), kernel, activation, tuple(out), zero_head, compute_dtype(dtype), stride)

    return Net(module)


@recorded
def res_deconv(
    *, channels: tuple[Count, ...], kernel: Count = 3, stride: Count = 2, activation: Activation = "relu", dtype: Dtype = "float32"
) -> Net:
    """Decoder: a dense layer to a small image; for each level a block that keeps the shape, then one that enlarges it; f; a 1x1
    convolution as the head. Mirrors `res_conv` with its channels reversed.

    Args:
        channels: channels[0] of the small image, then one number for each level.
        kernel: height and width of the blocks' kernels.
        stride: factor by which every level enlarges the image.
        activation: f.
        dtype: of the computation; parameters are float32.
    """
    _check("res_deconv", channels)

    def module(out: tuple[int, ...], event_ndims: int = 1, zero_head: bool = False) -> nn.Module:
        image_out("res_deconv", out)
        return ResDeconv(tuple(channels), kernel, activation, tuple(out), zero_head, compute_dtype(dtype), stride, event_ndims)

    return Net(module)


def _check(kind: str, channels: tuple[int, ...]) -> None:
    if not channels:
        raise UserError(f"{kind}: channels=() is invalid; it must name at least one number of channels")


class Residual(Convolutional):
    """What the two share: the blocks."""

    stride: int

    def level(self, h: Array, i: int, m: int, resample: Any) -> Array:
        """A block that keeps the shape, and one that ends with m channels."""
        f, n = getattr(nn, self.activation), h.shape[-1]

        def layer(kind: Any, features: int, stride: int, name: str, h: Array) -> Array:
            return kind(features, self.kernel, stride, name=f"{name}_{i}", **self.options())(h)

        inner = layer(Convolution, n, 1, "keep_a", f(h))
        h = h + layer(Convolution, n, 1, "keep_b", f(inner))
        inner = layer(Convolution, n, 1, "change_a", f(h))
        return layer(resample, m, self.stride, "skip", h) + layer(resample, m, self.stride, "change_b", f(inner))


class ResConv(Residual):
    """See `res_conv`."""

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        h = self.context(Convolution(self.channels[0], 1, 1, name="conv", **self.options())(x), context, pixels=True)
        for i, m in enumerate(self.channels[1:]):
            h = self.level(h, i, m, Convolution)
        h = flatten(getattr(nn, self.activation)(h), 3)
        h = nn.Dense(math.prod(self.out), name="head", **self.options(head=True))(h)
        return h.reshape(*h.shape[:-1], *self.out).astype(jnp.result_type(x))


class ResDeconv(Residual):
    """See `res_deconv`."""

    event_ndims: int

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        height, width = self.out[-3:-1]
        scales = [self.stride**i for i in reversed(range(len(self.channels)))]
        sizes = [(math.ceil(height / s), math.ceil(width / s)) for s in scales]
        small = (*sizes[0], self.channels[0])
        h = nn.Dense(math.prod(small), name="dense", **self.options())(flatten(x, self.event_ndims))
        h = self.context(h, context, pixels=False)
        h = h.reshape(*h.shape[:-1], *small)
        for i, (m, (rows, columns)) in enumerate(zip(self.channels[1:], sizes[1:], strict=True)):
            h = self.level(h, i, m, UpConv)[..., :rows, :columns, :]
        h = Convolution(self.map_channels(), 1, 1, name="head", **self.options(head=True))(getattr(nn, self.activation)(h))
        return self.maps(h).astype(jnp.result_type(x))
