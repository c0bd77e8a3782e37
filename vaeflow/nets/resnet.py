"""Residual network from image to image: RealNVP's conditioner (Dinh et al. 2016, section 4.1; He et al. 2016, pre-activation)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from vaeflow.build import Count
from vaeflow.model import Array
from vaeflow.nets.conv import Convolutional, image_out, needs_image
from vaeflow.nets.convolve import Convolution
from vaeflow.nets.net import Activation, Dtype, Net, compute_dtype
from vaeflow.record import recorded


@recorded
def resnet(*, width: Count, blocks: Count, kernel: Count = 3, activation: Activation = "relu", dtype: Dtype = "float32") -> Net:
    """x [..., H, W, C] -> [..., *out]; every convolution k x k, but for the 1x1 head:

        h = conv(x) + V c,    h = h + conv(f(conv(f(h)))) in every block,    output conv_1x1(f(h))

    The blocks are one scan over stacked parameters [blocks, ...]: compile time does not grow with their number. Without the paper's
    weight and batch normalisation inside the network: its statistics are no bijector's.

    Args:
        width: channels of every layer but the head.
        blocks: number of residual blocks.
        kernel: k.
        activation: f.
        dtype: of the computation; parameters are float32.
    """

    def module(out: tuple[int, ...], event_ndims: int = 3, zero_head: bool = False) -> nn.Module:
        needs_image("resnet", event_ndims)
        image_out("resnet", out)
        return ResNet((width,), kernel, activation, tuple(out), zero_head, compute_dtype(dtype), blocks)

    return Net(module)


class ResNetBlock(Convolutional):
    """h -> h + conv(f(conv(f(h)))), with the signature of a scan's body."""

    @nn.compact
    def __call__(self, h: Array, _: None) -> tuple[Array, None]:
        f, inner = getattr(nn, self.activation), h
        for i in range(2):
            inner = Convolution(self.channels[0], self.kernel, 1, name=f"conv_{i}", **self.options())(f(inner))
        return h + inner, None


class ResNet(Convolutional):
    """See `resnet`."""

    blocks: int

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        h = Convolution(self.channels[0], self.kernel, 1, name="conv", **self.options())(x)
        h = self.context(h, context, pixels=True)
        stack = nn.scan(ResNetBlock, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.blocks)
        h, _ = stack(self.channels, self.kernel, self.activation, self.out, self.zero_head, self.dtype, name="blocks")(h, None)
        h = Convolution(self.map_channels(), 1, 1, name="head", **self.options(head=True))(getattr(nn, self.activation)(h))
        return self.maps(h).astype(jnp.result_type(x))
