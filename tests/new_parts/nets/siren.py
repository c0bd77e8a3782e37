"""SIREN (Sitzmann et al. 2020, arXiv:2006.09661): a multi-layer perceptron with sines, for functions with fine detail."""

from __future__ import annotations

import math

import flax.linen as nn
import jax.numpy as jnp

from vaeflow.build import Count, Positive
from vaeflow.model import Array
from vaeflow.nets.net import Net, flatten, inits


def siren(*, hidden: tuple[Count, ...], frequency: Positive) -> Net:
    """x [..., *event] -> flat -> sin(frequency (W_1 x + V c + b)) -> sin(W_i h + b_i) -> Dense -> [..., *out]; c the context."""

    def module(out: tuple[int, ...], event_ndims: int = 1, zero_head: bool = False) -> nn.Module:
        return Siren(tuple(hidden), frequency, tuple(out), event_ndims, zero_head)

    return Net(module)


class Siren(nn.Module):
    """See `siren`."""

    hidden: tuple[int, ...]
    frequency: float
    out: tuple[int, ...]
    event_ndims: int
    zero_head: bool

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        h = flatten(x, self.event_ndims)
        for i, size in enumerate(self.hidden):
            h = nn.Dense(size, name=f"dense_{i}", **inits())(h)
            if i == 0 and context is not None:
                h = h + nn.Dense(size, use_bias=False, name="context", **inits())(context)
            h = jnp.sin(h if i else self.frequency * h)
        h = nn.Dense(math.prod(self.out), name="head", **inits(self.zero_head))(h)
        return h.reshape(*h.shape[:-1], *self.out).astype(jnp.result_type(x))
