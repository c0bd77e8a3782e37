"""Multi-layer perceptron on flattened events."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vaeflow.build import Count
from vaeflow.model import Array
from vaeflow.nets.net import Activation, Dtype, Init, Net, compute_dtype, flatten, inits, torch_inits
from vaeflow.record import recorded


@recorded
def mlp(*, hidden: tuple[Count, ...], activation: Activation = "relu", dtype: Dtype = "float32", init: Init = "lecun_normal") -> Net:
    """Fully connected network: x [..., *event] -> flat -> Dense + activation for each of `hidden` -> Dense -> [..., *out].

    Args:
        hidden: widths of the hidden layers; (): a linear map.
        activation: of the hidden layers.
        dtype: of the computation; parameters are float32.
        init: lecun_normal (zero biases), or torch, PyTorch's default initialisation of a linear layer.
    """

    def module(out: tuple[int, ...], event_ndims: int = 1, zero_head: bool = False) -> nn.Module:
        return Mlp(tuple(hidden), activation, tuple(out), event_ndims, zero_head, compute_dtype(dtype), init)

    return Net(module)


class Mlp(nn.Module):
    """h_1 = f(W_1 x + V c + b_1), h_i = f(W_i h_(i-1) + b_i), output W h + b reshaped to `out`; c the context."""

    hidden: tuple[int, ...]
    activation: str
    out: tuple[int, ...]
    event_ndims: int
    zero_head: bool
    dtype: Any
    weights: str  # the argument `init` of `mlp`: linen has a method of that name

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        h = flatten(x, self.event_ndims)
        lead = h.shape[:-1]
        # One row axis: XLA transposes the operands of weight gradients over several (14% of an MNIST step on a CPU for [1, B]).
        h = h.reshape(math.prod(lead), h.shape[-1])
        f = getattr(nn, self.activation)
        sizes = (*self.hidden, math.prod(self.out))
        for i, size in enumerate(sizes):
            head = i == len(self.hidden)
            zero = head and self.zero_head
            start = torch_inits(h.shape[-1]) if self.weights == "torch" and not zero else inits(zero)
            options = dict(dtype=self.dtype, **start)
            h = nn.Dense(size, name="head" if head else f"dense_{i}", **options)(h)
            if i == 0 and context is not None:
                shift = nn.Dense(size, use_bias=False, name="context", **options)(context)
                h = h.reshape(*lead, size) + shift
                lead = h.shape[:-1]
                h = h.reshape(math.prod(lead), size)
            h = h if head else f(h)
        return h.reshape(*lead, *self.out).astype(jnp.result_type(x))
