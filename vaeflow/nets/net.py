"""Net: a linen network whose output shape is still open.

A layer or a model knows the shape that it needs (two numbers per dimension, a spline's bins, an image), the config knows
the architecture; a Net joins them:

    net.module(out, event_ndims) -> nn.Module
        __call__(x, context=None)    x [..., *event], event of rank `event_ndims`; context [..., C] -> [..., *out]

The module's leading axes are free; `context` broadcasts against them: Dense(x) + Dense(context), never a concatenation.
The output head starts at zero when `zero_head` (a coupling then starts as the identity). Networks may compute in bfloat16
(`dtype`); parameters stay float32 and the output has x's dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn


class Net(NamedTuple):
    """See the module's docstring. module: (out shape, event_ndims, zero_head) -> linen module."""

    module: Callable[[tuple[int, ...], int, bool], nn.Module]
