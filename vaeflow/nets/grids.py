"""Fully convolutional networks between an image and a coarser grid of vectors: the encoder and decoder of van den Oord, Vinyals,
Kavukcuoglu (2017), "Neural discrete representation learning": strided convolutions and residual blocks. Padding is SAME, so n
strides of s map H to ceil(H / s^n)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from vaeflow.build import Count, Natural
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.nets.conv import Convolutional, UpConv, image_out, needs_image
from vaeflow.nets.convolve import Convolution
from vaeflow.nets.net import Activation, Dtype, Net, compute_dtype
from vaeflow.nets.resnet import ResNetBlock
from vaeflow.record import recorded


@recorded
def downsample(
    *,
    channels: tuple[Count, ...],
    kernel: Count = 3,
    stride: Count = 2,
    blocks: Natural = 1,
    activation: Activation = "relu",
    dtype: Dtype = "float32",
) -> Net:
    """x [..., H, W, C] -> [..., *out], out [h, w, c] with h = ceil(H / stride^n): n strided convolutions, then residual blocks, then a 1x1
    convolution as the head.

    Args:
        channels: output channels of the n strided convolutions.
        kernel: height and width of every kernel but the head's.
        stride: of the strided convolutions.
        blocks: number of residual blocks.
        activation: of every layer but the head.
        dtype: of the computation; parameters are float32.
    """

    def module(out: tuple[int, ...], event_ndims: int = 3, zero_head: bool = False) -> nn.Module:
        _check("downsample", channels, out, event_ndims)
        return Downsample(tuple(channels), kernel, activation, tuple(out), zero_head, compute_dtype(dtype), stride, blocks)

    return Net(module)


@recorded
def upsample(
    *,
    channels: tuple[Count, ...],
    kernel: Count = 3,
    stride: Count = 2,
    blocks: Natural = 1,
    activation: Activation = "relu",
    dtype: Dtype = "float32",
) -> Net:
    """x [..., h, w, c] -> [..., *out], out [H, W, C] with h = ceil(H / stride^n): a convolution, residual blocks, then n transposed
    convolutions, the last of which is the head, and a crop. Mirrors `downsample` with its n channels reversed.

    Args:
        channels: channels[0] of the first convolution and the blocks, the others of the transposed convolutions but the head.
        kernel: height and width of every kernel.
        stride: of the transposed convolutions.
        blocks: number of residual blocks.
        activation: of every layer but the head.
        dtype: of the computation; parameters are float32.
    """

    def module(out: tuple[int, ...], event_ndims: int = 3, zero_head: bool = False) -> nn.Module:
        _check("upsample", channels, out, event_ndims)
        return Upsample(tuple(channels), kernel, activation, tuple(out), zero_head, compute_dtype(dtype), stride, blocks)

    return Net(module)


def _check(kind: str, channels: tuple[int, ...], out: tuple[int, ...], event_ndims: int) -> None:
    needs_image(kind, event_ndims)
    image_out(kind, out)
    if not channels:
        raise UserError(f"{kind}: channels=() is invalid; it must name at least one number of channels")


class _Strided(Convolutional):
    """What the two share."""

    stride: int
    blocks: int

    def residual(self, h: Array, width: int) -> Array:
        """The residual blocks, one scan over stacked parameters [blocks, ...]; their last activation."""
        if self.blocks:
            stack = nn.scan(ResNetBlock, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.blocks)
            h, _ = stack((width,), self.kernel, self.activation, self.out, self.zero_head, self.dtype, name="blocks")(h, None)
        return getattr(nn, self.activation)(h)

    def fits(self, image: tuple[int, ...], grid: tuple[int, ...]) -> None:
        """UserError: strides do not lead from the image's pixels [H, W] to the grid's."""
        shrink = self.stride ** len(self.channels)
        expected = tuple(-(-size // shrink) for size in image)
        if expected != grid:
            kind = type(self).__name__.lower()
            raise UserError(f"a {kind} network of {len(self.channels)} strides of {self.stride} joins {image} to {expected}, not to {grid}")


class Downsample(_Strided):
    """See `downsample`."""

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        self.fits(x.shape[-3:-1], self.out[-3:-1])
        f, h = getattr(nn, self.activation), x
        for i, n in enumerate(self.channels):
            h = Convolution(n, self.kernel, self.stride, name=f"conv_{i}", **self.options())(h if i == 0 else f(h))
            h = self.context(h, context, pixels=True) if i == 0 else h
        h = self.residual(h, self.channels[-1])
        h = Convolution(self.map_channels(), 1, 1, name="head", **self.options(head=True))(h)
        return self.maps(h).astype(jnp.result_type(x))


class Upsample(_Strided):
    """See `upsample`."""

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        height, width = self.out[-3:-1]
        self.fits((height, width), x.shape[-3:-1])
        h = Convolution(self.channels[0], self.kernel, 1, name="conv", **self.options())(x)
        h = self.residual(self.context(h, context, pixels=True), self.channels[0])
        for i, n in enumerate((*self.channels[1:], self.map_channels())):
            head = i == len(self.channels) - 1
            name = "head" if head else f"up_{i}"
            h = UpConv(n, self.kernel, self.stride, name=name, **self.options(head))(h)
            h = h if head else getattr(nn, self.activation)(h)
        return self.maps(h[..., :height, :width, :]).astype(jnp.result_type(x))
