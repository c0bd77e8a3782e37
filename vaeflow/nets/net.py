"""Net: a linen network whose output shape is still open.

A layer or a model knows the shape that it needs (two numbers per dimension, a spline's bins, an image), the config knows
the architecture; a Net joins them:

    net.module(out, event_ndims, zero_head) -> nn.Module
        __call__(x, context=None)    x [..., *event], event of rank `event_ndims`; context [..., C] -> [..., *out]

The module's leading axes are free; `context` broadcasts against them: Dense(x) + Dense(context), never a concatenation.
The output head starts at zero when `zero_head` (a coupling then starts as the identity). Networks may compute in bfloat16
(`dtype`); parameters stay float32 and the output has x's dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vaeflow.model import Array

Activation = Literal["relu", "tanh", "elu", "gelu", "silu", "leaky_relu", "softplus", "sigmoid"]
Dtype = Literal["float32", "bfloat16"]
Init = Literal["lecun_normal", "torch"]


class Net(NamedTuple):
    """See the module's docstring. module: (out shape, event_ndims, zero_head) -> linen module."""

    module: Callable[[tuple[int, ...], int, bool], nn.Module]
    spec: Any = None  # how it was made, see record.py


def compute_dtype(dtype: str) -> Any:
    """linen's `dtype`: None for "float32", so that float64 inputs are promoted and not cut to float32."""
    return jnp.bfloat16 if dtype == "bfloat16" else None


def inits(zero: bool = False) -> dict[str, Any]:
    """Initialisers of every layer here: LeCun normal kernels (variance 1 / fan in) and zero biases; all zeros for `zero`."""
    kernel = nn.initializers.zeros_init() if zero else nn.initializers.lecun_normal()
    return {"kernel_init": kernel, "bias_init": nn.initializers.zeros_init()}


def torch_inits(fan_in: int) -> dict[str, Any]:
    """PyTorch's default initialisers of a linear layer: kernel and bias are both uniform on (-1, 1) / sqrt(fan_in).

    PyTorch draws the kernel by kaiming_uniform_(a=sqrt(5)), whose bound sqrt(6 / (1 + a^2) / fan_in) is 1 / sqrt(fan_in).
    """
    bound = fan_in**-0.5

    def uniform(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return {"kernel_init": uniform, "bias_init": uniform}


def flatten(x: Array, event_ndims: int) -> Array:
    """[..., *event] -> [..., size of the event]."""
    return x.reshape(*x.shape[: x.ndim - event_ndims], -1)
