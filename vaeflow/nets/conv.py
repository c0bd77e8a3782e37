"""Convolutional networks: image -> vector (`conv`), vector -> image (`deconv`), image -> image (`convnet`, `glow_net`).

Images are [..., H, W, C]. Padding is SAME, so a stride s maps H to ceil(H/s); `deconv` starts from ceil(H / s^n) and crops.
The networks from image to image also take a context that is itself an image, [B, H, W, C'].
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vaeflow.build import Count
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.nets.convolve import Convolution, convolve, images
from vaeflow.nets.net import Activation, Dtype, Net, compute_dtype, flatten, inits
from vaeflow.record import recorded


@recorded
def conv(
    *,
    channels: tuple[Count, ...],
    kernel: Count = 3,
    stride: Count = 2,
    hidden: tuple[Count, ...] = (),
    activation: Activation = "relu",
    dtype: Dtype = "float32",
) -> Net:
    """Encoder, image -> vector: strided convolutions, then Dense layers, then a Dense head of any shape.

    Args:
        channels: output channels of the convolutions.
        kernel: height and width of their kernels.
        stride: of every convolution.
        hidden: widths of the Dense layers between the convolutions and the head.
        activation: of every layer but the head.
        dtype: of the computation; parameters are float32.
    """

    def module(out: tuple[int, ...], event_ndims: int = 3, zero_head: bool = False) -> nn.Module:
        needs_image("conv", event_ndims)
        common = (tuple(channels), kernel, activation, tuple(out), zero_head, compute_dtype(dtype))
        return Conv(*common, stride, tuple(hidden))

    return Net(module)


@recorded
def deconv(
    *,
    channels: tuple[Count, ...],
    kernel: Count = 3,
    stride: Count = 2,
    hidden: tuple[Count, ...] = (),
    activation: Activation = "relu",
    dtype: Dtype = "float32",
) -> Net:
    """Decoder, vector -> image: Dense layers, a Dense layer to a small image, then transposed convolutions. Mirrors `conv` with its
    channels reversed.

    Args:
        channels: channels[0] of the small image, channels[1:] the outputs of the transposed convolutions before the head; with the
            head there are as many of them as channels.
        kernel: height and width of their kernels.
        stride: factor by which every transposed convolution enlarges the image.
        hidden: widths of the Dense layers before the one to the small image.
        activation: of every layer but the head.
        dtype: of the computation; parameters are float32.
    """

    def module(out: tuple[int, ...], event_ndims: int = 1, zero_head: bool = False) -> nn.Module:
        image_out("deconv", out)
        if not channels:
            raise UserError("deconv: channels=() is invalid; it must name at least one number of channels")
        common = (tuple(channels), kernel, activation, tuple(out), zero_head, compute_dtype(dtype))
        return Deconv(*common, stride, tuple(hidden), event_ndims)

    return Net(module)


@recorded
def convnet(*, channels: tuple[Count, ...], kernel: Count = 3, activation: Activation = "relu", dtype: Dtype = "float32") -> Net:
    """Same-size network, image -> image (a coupling's conditioner): convolutions of stride 1, then one as the head.

    Args:
        channels: output channels of the convolutions before the head; (): the head alone.
        kernel: height and width of every kernel.
        activation: of every layer but the head.
        dtype: of the computation; parameters are float32.
    """
    return _same_size("convnet", channels, kernel, kernel, activation, dtype)


@recorded
def glow_net(*, channels: tuple[Count, ...], kernel: Count = 3, activation: Activation = "relu", dtype: Dtype = "float32") -> Net:
    """Glow's conditioner (Kingma and Dhariwal 2018), image -> image: as `convnet`, but only the first convolution and the head are wider
    than one pixel. With two `channels` and kernel 3: 3x3, 1x1, 3x3.

    Args:
        channels: output channels of the convolutions before the head.
        kernel: height and width of the kernels of the first convolution and the head.
        activation: of every layer but the head.
        dtype: of the computation; parameters are float32.
    """
    return _same_size("glow_net", channels, kernel, 1, activation, dtype)


def _same_size(kind: str, channels: tuple[int, ...], kernel: int, between: int, activation: str, dtype: str) -> Net:
    def module(out: tuple[int, ...], event_ndims: int = 3, zero_head: bool = False) -> nn.Module:
        needs_image(kind, event_ndims)
        image_out(kind, out)
        return ConvNet(tuple(channels), kernel, activation, tuple(out), zero_head, compute_dtype(dtype), between)

    return Net(module)


def needs_image(kind: str, event_ndims: int) -> None:
    """UserError: the network reads images, and is given something else."""
    if event_ndims != 3:
        raise UserError(f"a {kind} network reads images [H, W, C], here it is given events of rank {event_ndims}; use an mlp or a deconv")


def image_out(kind: str, out: tuple[int, ...]) -> None:
    """UserError: the network gives images, and something else is asked."""
    if len(out) not in (3, 4):
        raise UserError(f"a {kind} network gives images [H, W, C], here the shape {tuple(out)} is asked; use an mlp or a conv")


class Convolutional(nn.Module):
    """What these networks share: sizes, and layers of the class given, the first of which adds the context's term."""

    channels: tuple[int, ...]
    kernel: int
    activation: str
    out: tuple[int, ...]
    zero_head: bool
    dtype: Any

    def options(self, head: bool = False) -> dict[str, Any]:
        return dict(dtype=self.dtype, **inits(zero=head and self.zero_head))

    def context(self, h: Array, context: Array | None, pixels: bool, head: bool = False) -> Array:
        """h + V c, the same at every pixel of an image; for a context that is an image as large as h, a convolution of it."""
        if context is None:
            return h
        if pixels and context.ndim >= 4:
            if context.shape[-3:-1] != h.shape[-3:-1]:
                raise UserError(f"a context of {context.shape[-3:-1]} pixels does not fit a layer on {h.shape[-3:-1]} pixels")
            return h + Convolution(h.shape[-1], self.kernel, 1, name="context", **self.options(head))(context)
        term = nn.Dense(h.shape[-1], use_bias=False, name="context", **self.options(head))(context)
        return h + (term[..., None, None, :] if pixels else term)

    def maps(self, h: Array) -> Array:
        """[..., H, W, P*C] -> [..., *out], out [H, W, C] or, for P parameters of every pixel, [P, H, W, C]."""
        if len(self.out) == 3:
            return h
        p, _, _, c = self.out
        return jnp.moveaxis(h.reshape(*h.shape[:-1], p, c), -2, -4)

    def map_channels(self) -> int:
        return self.out[-1] * (self.out[0] if len(self.out) == 4 else 1)


class Conv(Convolutional):
    """See `conv`."""

    stride: int
    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        f, h = getattr(nn, self.activation), x
        for i, n in enumerate(self.channels):
            h = Convolution(n, self.kernel, self.stride, name=f"conv_{i}", **self.options())(h)
            h = f(self.context(h, context, pixels=True) if i == 0 else h)
        h = flatten(h, 3)
        for i, n in enumerate((*self.hidden, math.prod(self.out))):
            head = i == len(self.hidden)
            h = nn.Dense(n, name="head" if head else f"dense_{i}", **self.options(head))(h)
            if i == 0 and not self.channels:
                h = self.context(h, context, pixels=False, head=head)
            h = h if head else f(h)
        return h.reshape(*h.shape[:-1], *self.out).astype(jnp.result_type(x))


class Deconv(Convolutional):
    """See `deconv`."""

    stride: int
    hidden: tuple[int, ...]
    event_ndims: int

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        f, h = getattr(nn, self.activation), flatten(x, self.event_ndims)
        height, width = self.out[-3:-1]
        shrink = self.stride ** len(self.channels)
        small = (math.ceil(height / shrink), math.ceil(width / shrink), self.channels[0])
        for i, n in enumerate((*self.hidden, math.prod(small))):
            h = nn.Dense(n, name=f"dense_{i}", **self.options())(h)
            h = f(self.context(h, context, pixels=False) if i == 0 else h)
        h = h.reshape(*h.shape[:-1], *small)
        for i, n in enumerate((*self.channels[1:], self.map_channels())):
            head = i == len(self.channels) - 1
            name = "head" if head else f"conv_{i}"
            h = UpConv(n, self.kernel, self.stride, name=name, **self.options(head))(h)
            h = h if head else f(h)
        return self.maps(h[..., :height, :width, :]).astype(jnp.result_type(x))


class UpConv(nn.Module):
    """Transposed convolution, SAME padding: y[s i + a - o] = sum_j x[i - j] K[s j + a] per axis, stride s, 0 <= a < s.

    Written as a stride-1 convolution of ceil(kernel/s)^2 taps with s^2 times the features, whose blocks are then laid out as
    pixels (Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?"): the same numbers as
    lax.conv_transpose, up to three times faster to differentiate on CPUs, where dilated convolutions have no fast kernels.
    """

    features: int
    kernel: int
    stride: int
    dtype: Any
    kernel_init: Any
    bias_init: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        k, s, n = self.kernel, self.stride, self.features
        height, width, channels = x.shape[-3:]
        taps = -(-k // s)
        kernel = self.param("kernel", self.kernel_init, (k, k, channels, n))
        bias = self.param("bias", self.bias_init, (n,))
        dtype = self.dtype or jnp.result_type(x, kernel)
        pad, edge = (0, taps * s - k), (taps - 1, taps - 1)
        # [s j + a, s j' + a', c, n] -> [j, j', c, (a, a', n)], flipped in j since XLA correlates
        blocks = jnp.pad(kernel.astype(dtype), (pad, pad, (0, 0), (0, 0))).reshape(taps, s, taps, s, channels, n)
        blocks = blocks[::-1, :, ::-1].transpose(0, 2, 4, 1, 3, 5).reshape(taps, taps, channels, s * s * n)
        h = convolve(images(x).astype(dtype), blocks, 1, (edge, edge))
        rows, columns = h.shape[1:3]
        h = h.reshape(-1, rows, columns, s, s, n).transpose(0, 1, 3, 2, 4, 5).reshape(-1, rows * s, columns * s, n)
        first = max(k - s, 0) // 2
        h = h[:, first : first + s * height, first : first + s * width] + bias.astype(dtype)
        return h.reshape(*x.shape[:-3], s * height, s * width, n)


class ConvNet(Convolutional):
    """See `convnet`; `between` is the kernel of the convolutions between the first and the head."""

    between: int

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        f, h = getattr(nn, self.activation), x
        for i, n in enumerate((*self.channels, self.map_channels())):
            head = i == len(self.channels)
            kernel = self.kernel if head or i == 0 else self.between
            h = Convolution(n, kernel, 1, name="head" if head else f"conv_{i}", **self.options(head))(h)
            h = self.context(h, context, pixels=True, head=head) if i == 0 else h
            h = h if head else f(h)
        return self.maps(h).astype(jnp.result_type(x))
