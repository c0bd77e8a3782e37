"""Causal: a linen network over sequences of symbols whose output at a position sees the earlier ones alone.

    net.module(length, symbols, outputs) -> nn.Module
        __call__(codes, context=None)    codes [..., length], integers below `symbols`; context [..., C] -> [..., length, outputs]

The output i depends on codes 0 .. i-1 and the context: the logits of p(c_i | c_<i, context) in every position with one evaluation.
The module's leading axes are free; `context` broadcasts against them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from vaeflow.build import Count
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.nets.net import Activation, Dtype, compute_dtype, inits
from vaeflow.nets.transformer import TransformerBlock
from vaeflow.record import recorded


class Causal(NamedTuple):
    """See the module's docstring."""

    module: Callable[[int, int, int], nn.Module]
    spec: Any = None  # how it was made, see record.py


@recorded
def causal_transformer(
    *, width: Count, depth: Count, heads: Count = 2, activation: Activation = "gelu", dtype: Dtype = "float32"
) -> Causal:
    """Decoder-only transformer (Vaswani et al. 2017; pre-normalisation as in Xiong et al. 2020). With E an embedding of symbols:

        h_i = E[c_(i-1)] + position_i + V context  (no E in h_0),  then `depth` blocks of nets/transformer.py in which the position i
        attends to 0 .. i,                                          output_i = W norm(h_i)

    The head starts at zero: logits then say that all symbols are equally likely.

    Args:
        width: size of a token; a multiple of `heads`.
        depth: number of blocks.
        heads: of the attention.
        activation: of the blocks' dense layers.
        dtype: of the computation; parameters are float32.
    """
    if width % heads:
        raise UserError(f"causal_transformer: heads={heads} does not divide width={width}")

    def module(length: int, symbols: int, outputs: int) -> nn.Module:
        return CausalTransformer(length, symbols, outputs, width, depth, heads, activation, compute_dtype(dtype))

    return Causal(module)


class CausalTransformer(nn.Module):
    """See `causal_transformer`."""

    length: int
    symbols: int
    outputs: int
    width: int
    depth: int
    heads: int
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, codes: Array, context: Array | None = None) -> Array:
        h = nn.Embed(self.symbols, self.width, dtype=self.dtype, name="embed")(codes)
        h = jnp.pad(h[..., :-1, :], [(0, 0)] * (h.ndim - 2) + [(1, 0), (0, 0)])
        h = h + self.param("position", nn.initializers.normal(0.02), (self.length, self.width)).astype(h.dtype)
        if context is not None:
            term = nn.Dense(self.width, use_bias=False, dtype=self.dtype, name="context", **inits())(context)
            h = h + term[..., None, :].astype(h.dtype)
        stack = nn.scan(TransformerBlock, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth)
        h, _ = stack((self.width,), 1, self.activation, (), False, self.dtype, self.heads, True, name="blocks")(h, None)
        h = nn.LayerNorm(dtype=self.dtype, name="norm")(h)
        h = nn.Dense(self.outputs, dtype=self.dtype, name="head", **inits(zero=True))(h)
        return h.astype(jnp.result_type(float))
