"""The network of continuous flows: each layer is gated and shifted by the context (Grathwohl et al. 2018, "FFJORD", 1810.01367)."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vaeflow.build import Count
from vaeflow.model import Array
from vaeflow.nets.net import Activation, Dtype, Net, compute_dtype, flatten, inits
from vaeflow.record import recorded


@recorded
def concat_squash(*, hidden: tuple[Count, ...] = (64, 64, 64), activation: Activation = "softplus", dtype: Dtype = "float32") -> Net:
    """x [..., *event] -> flat -> a layer for each of `hidden` and a head -> [..., *out]; with c the context (a time, or its features)

        layer(h) = (W h + b) * sigmoid(V c + d) + U c,    f between layers, f = `activation`

    W h + b alone without a context. The defaults are FFJORD's for two-dimensional data; it passes t itself as c. A zero head has W, b and U
    zero.
    """

    def module(out: tuple[int, ...], event_ndims: int = 1, zero_head: bool = False) -> nn.Module:
        return ConcatSquash(tuple(hidden), activation, tuple(out), event_ndims, zero_head, compute_dtype(dtype))

    return Net(module)


class ConcatSquash(nn.Module):
    """See `concat_squash`."""

    hidden: tuple[int, ...]
    activation: str
    out: tuple[int, ...]
    event_ndims: int
    zero_head: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        h = flatten(x, self.event_ndims)
        for i, size in enumerate((*self.hidden, math.prod(self.out))):
            head = i == len(self.hidden)
            name, zero = "head" if head else f"dense_{i}", head and self.zero_head
            h = nn.Dense(size, name=name, dtype=self.dtype, **inits(zero))(h)
            if context is not None:
                gate = nn.Dense(size, name=f"gate_{i}", dtype=self.dtype, **inits())(context)
                shift = nn.Dense(size, use_bias=False, name=f"shift_{i}", dtype=self.dtype, **inits(zero))(context)
                h = h * nn.sigmoid(gate) + shift
            h = h if head else getattr(nn, self.activation)(h)
        return h.reshape(*h.shape[:-1], *self.out).astype(jnp.result_type(x))
