"""Transformer from image to image: the conditioner of Jet (Kolesnikov et al. 2024, "Jet: A modern transformer-based normalizing flow";
Dosovitskiy et al. 2020, ViT; pre-normalisation as in Xiong et al. 2020). After a squeeze layer a pixel is a patch."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from vaeflow.build import Count
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.nets.conv import Convolutional, image_out, needs_image
from vaeflow.nets.net import Activation, Dtype, Net, compute_dtype
from vaeflow.record import recorded


@recorded
def transformer(*, width: Count, depth: Count, heads: Count = 4, activation: Activation = "gelu", dtype: Dtype = "float32") -> Net:
    """x [..., H, W, C] -> [..., *out]; a token is a pixel, all attend to all:

        h = W x + V c + position,    h = h + attention(norm(h)), h = h + W2 f(W1 norm(h)) `depth` times,    output W norm(h)

    with LayerNorm and learned positions. The blocks are one scan over stacked parameters [depth, ...]: compile time does not grow with
    their number. The number of pixels is fixed at init.

    Args:
        width: size of a token; a multiple of `heads`. The layer inside of f has 4 width numbers.
        depth: number of blocks.
        heads: of the attention.
        activation: f.
        dtype: of the computation; parameters are float32.
    """
    if width % heads:
        raise UserError(f"transformer: heads={heads} does not divide width={width}")

    def module(out: tuple[int, ...], event_ndims: int = 3, zero_head: bool = False) -> nn.Module:
        needs_image("transformer", event_ndims)
        image_out("transformer", out)
        return Transformer((width,), 1, activation, tuple(out), zero_head, compute_dtype(dtype), depth, heads)

    return Net(module)


class TransformerBlock(Convolutional):
    """h [..., tokens, width] -> (the next h, None), with the signature of a scan's body; `causal`: tokens attend to no later ones."""

    heads: int
    causal: bool = False

    @nn.compact
    def __call__(self, h: Array, _: None) -> tuple[Array, None]:
        width, f = self.channels[0], getattr(nn, self.activation)
        qkv = nn.Dense(3 * width, name="qkv", **self.options())(nn.LayerNorm(dtype=self.dtype, name="norm_0")(h))
        q, k, v = jnp.split(qkv.reshape(*h.shape[:-1], 3 * self.heads, width // self.heads), 3, axis=-2)
        mask = jnp.tri(h.shape[-2], dtype=bool) if self.causal else None
        mixed = nn.dot_product_attention(q, k, v, mask=mask, dtype=self.dtype).reshape(h.shape)
        h = h + nn.Dense(width, name="mix", **self.options())(mixed)
        inner = nn.Dense(4 * width, name="up", **self.options())(nn.LayerNorm(dtype=self.dtype, name="norm_1")(h))
        return h + nn.Dense(width, name="down", **self.options())(f(inner)), None


class Transformer(Convolutional):
    """See `transformer`."""

    depth: int
    heads: int

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        width = self.channels[0]
        h = self.context(nn.Dense(width, name="embed", **self.options())(x), context, pixels=True)
        position = self.param("position", nn.initializers.normal(0.02), (*x.shape[-3:-1], width))
        h = h + position.astype(h.dtype)
        pixels = h.shape[:-1]
        stack = nn.scan(TransformerBlock, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth)
        blocks = stack(self.channels, 1, self.activation, self.out, self.zero_head, self.dtype, self.heads, name="blocks")
        h, _ = blocks(h.reshape(*h.shape[:-3], -1, width), None)
        h = nn.LayerNorm(dtype=self.dtype, name="norm")(h).reshape(*pixels, width)
        h = nn.Dense(self.map_channels(), name="head", **self.options(head=True))(h)
        return self.maps(h).astype(jnp.result_type(x))
