"""Gated convolutional networks, image -> vector (`gated_conv`) and vector -> image (`gated_deconv`): the encoder and decoder of van den
Berg, Hasenclever, Tomczak, Welling (2018), "Sylvester normalizing flows for variational inference". Every layer but the head is

    h' = (W h + V c + a) sigmoid(U h + T c + b)        elementwise; c the context, in the first layer alone

with no other activation; W and U are convolutions or dense matrices, made as one product of twice the features. Images are [..., H, W, C].
Padding is SAME, so a stride s maps H to ceil(H / s); upwards the image is cropped to that size again.
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
from vaeflow.nets.net import Dtype, Net, compute_dtype, flatten
from vaeflow.record import recorded

Counts = tuple[Count, ...]


@recorded
def gated_conv(*, channels: Counts, kernels: Counts, strides: Counts, hidden: Counts = (), dtype: Dtype = "float32") -> Net:
    """Encoder, image -> vector: gated convolutions; gated dense layers of the flattened image; a dense head of any shape. (An unpadded
    convolution as large as its image, the paper's last layer, is a dense one.)

    Args:
        channels: output channels of the convolutions.
        kernels: height and width of their kernels, one number for each of `channels`.
        strides: one for each of `channels`.
        hidden: widths of the dense layers between the convolutions and the head.
        dtype: of the computation; parameters are float32.
    """
    _check("gated_conv", channels, kernels, strides)

    def module(out: tuple[int, ...], event_ndims: int = 3, zero_head: bool = False) -> nn.Module:
        needs_image("gated_conv", event_ndims)
        shared = (tuple(channels), max(kernels, default=1), "sigmoid", tuple(out), zero_head, compute_dtype(dtype))
        return GatedConv(*shared, tuple(kernels), tuple(strides), tuple(hidden))

    return Net(module)


@recorded
def gated_deconv(*, width: Count, channels: Counts, kernels: Counts, strides: Counts, hidden: Counts = (), dtype: Dtype = "float32") -> Net:
    """Decoder, vector -> image: gated dense layers; one more to a small image (the paper's first layer, a transposed convolution of a
    single pixel); gated convolutions, transposed where the stride is above 1; a 1x1 convolution as the head.

    Args:
        width: channels of the small image.
        channels: output channels of the convolutions before the head.
        kernels: height and width of their kernels, one number for each of `channels`.
        strides: one for each of `channels`; the small image is smaller than the output by their product.
        hidden: widths of the dense layers before the one to the small image.
        dtype: of the computation; parameters are float32.
    """
    _check("gated_deconv", channels, kernels, strides)

    def module(out: tuple[int, ...], event_ndims: int = 1, zero_head: bool = False) -> nn.Module:
        image_out("gated_deconv", out)
        shared = (tuple(channels), max(kernels, default=1), "sigmoid", tuple(out), zero_head, compute_dtype(dtype))
        return GatedDeconv(*shared, tuple(kernels), tuple(strides), tuple(hidden), width, event_ndims)

    return Net(module)


def _check(kind: str, channels: Counts, kernels: Counts, strides: Counts) -> None:
    for name, values in (("kernels", kernels), ("strides", strides)):
        if len(values) != len(channels):
            raise UserError(f"{kind}: {name}={tuple(values)} is invalid; it must have one number for each of channels={tuple(channels)}")


class Gated(Convolutional):
    """What the two share: layers that make [..., 2 n] numbers, and the gate that makes n of them."""

    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    hidden: tuple[int, ...]

    def gate(self, h: Array, context: Array | None, pixels: bool) -> Array:
        """h[..., :n] sigmoid(h[..., n:]), after the context's term."""
        value, gate = jnp.split(self.context(h, context, pixels), 2, axis=-1)
        return value * nn.sigmoid(gate)


class GatedConv(Gated):
    """See `gated_conv`."""

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        h = x
        for i, (n, kernel, stride) in enumerate(zip(self.channels, self.kernels, self.strides, strict=True)):
            h = Convolution(2 * n, kernel, stride, name=f"conv_{i}", **self.options())(h)
            h = self.gate(h, context if i == 0 else None, pixels=True)
        h, rest = flatten(h, 3), None if self.channels else context
        for i, n in enumerate(self.hidden):
            h = self.gate(nn.Dense(2 * n, name=f"dense_{i}", **self.options())(h), rest if i == 0 else None, pixels=False)
        h = nn.Dense(math.prod(self.out), name="head", **self.options(head=True))(h)
        h = h if self.hidden else self.context(h, rest, pixels=False, head=True)
        return h.reshape(*h.shape[:-1], *self.out).astype(jnp.result_type(x))


class GatedDeconv(Gated):
    """See `gated_deconv`."""

    width: int
    event_ndims: int

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        h = flatten(x, self.event_ndims)
        sizes = [self.out[-3:-1]]  # of the images, from the last to the first
        for stride in reversed(self.strides):
            sizes.append((math.ceil(sizes[-1][0] / stride), math.ceil(sizes[-1][1] / stride)))
        small = (*sizes.pop(), self.width)
        for i, n in enumerate((*self.hidden, math.prod(small))):
            h = self.gate(nn.Dense(2 * n, name=f"dense_{i}", **self.options())(h), context if i == 0 else None, pixels=False)
        h = h.reshape(*h.shape[:-1], *small)
        for i, (n, kernel, stride) in enumerate(zip(self.channels, self.kernels, self.strides, strict=True)):
            layer: Any = Convolution if stride == 1 else UpConv
            rows, columns = sizes.pop()
            h = layer(2 * n, kernel, stride, name=f"conv_{i}", **self.options())(h)
            h = self.gate(h[..., :rows, :columns, :], None, pixels=True)
        return self.maps(Convolution(self.map_channels(), 1, 1, name="head", **self.options(head=True))(h)).astype(jnp.result_type(x))
