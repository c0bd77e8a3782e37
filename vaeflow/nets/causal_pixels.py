"""Causal transformer over the pixels of an image, in raster order: the network of an autoregressive flow of patches."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vaeflow.model import Array
from vaeflow.nets.net import inits
from vaeflow.nets.transformer import TransformerBlock


class CausalPixels(nn.Module):
    """x [..., N, C] -> [..., outputs, N, C]; the output at i depends on x_0 .. x_(i-1) and the context alone:

        h_i = W x_(i-1) + position_i + V context  (no x in h_0),  `depth` causal blocks of nets/transformer.py,  output_i = U norm(h_i)

    The head starts at zero.
    """

    outputs: int
    width: int
    depth: int
    heads: int
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        tokens, channels = x.shape[-2:]
        h = nn.Dense(self.width, dtype=self.dtype, name="embed", **inits())(x)
        h = jnp.pad(h[..., :-1, :], [(0, 0)] * (h.ndim - 2) + [(1, 0), (0, 0)])
        h = h + self.param("position", nn.initializers.normal(0.02), (tokens, self.width)).astype(h.dtype)
        if context is not None:
            term = nn.Dense(self.width, use_bias=False, dtype=self.dtype, name="context", **inits())(context)
            h = h + term[..., None, :].astype(h.dtype)
        stack = nn.scan(TransformerBlock, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth)
        h, _ = stack((self.width,), 1, self.activation, (), False, self.dtype, self.heads, True, name="blocks")(h, None)
        h = nn.LayerNorm(dtype=self.dtype, name="norm")(h)
        h = nn.Dense(self.outputs * channels, dtype=self.dtype, name="head", **inits(zero=True))(h)
        h = h.reshape(*h.shape[:-1], self.outputs, channels)
        return jnp.swapaxes(h, -3, -2).astype(jnp.result_type(x))
