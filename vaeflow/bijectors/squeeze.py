"""Layers that only rearrange an image: squeeze (Dinh et al. 2016, section 3.6) and flatten. Both have log_det 0."""

from __future__ import annotations

import math

import jax.numpy as jnp

from vaeflow.bijectors.core.layer import Bijection, Layer
from vaeflow.build import Count
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.record import recorded


@recorded
def squeeze(*, factor: Count = 2) -> Layer:
    """Space to depth: data [H, W, C] -> latent [H/f, W/f, f*f*C], f the factor; every f x f block of pixels becomes one pixel.

    The channel (a, b, c), a the row within its block, b the column, has the index (a f + b) C + c: the first half of the channels
    is the upper half of every block, so that channel masks after a squeeze do not repeat the checkerboard before it.

    Args:
        factor: f; it divides H and W.
    """

    def inverse(x):
        *lead, height, width, channels = x.shape
        if height % factor or width % factor:
            raise UserError(f"squeeze: factor={factor} does not divide the height and width of the event {x.shape[-3:]}")
        blocks = x.reshape(-1, height // factor, factor, width // factor, factor, channels).transpose(0, 1, 3, 2, 4, 5)
        return blocks.reshape(*lead, height // factor, width // factor, factor**2 * channels), _zeros(x, 3)

    def forward(z):
        *lead, height, width, channels = z.shape
        blocks = z.reshape(-1, height, width, factor, factor, channels // factor**2).transpose(0, 1, 3, 2, 4, 5)
        return blocks.reshape(*lead, height * factor, width * factor, channels // factor**2), _zeros(z, 3)

    def init(key, x, context=None):
        del key, context
        if x.ndim != 4:
            raise UserError(f"a squeeze layer needs events that are images [H, W, C]; here they have the shape {x.shape[1:]}")
        inverse(x)  # for its error
        return {}

    return Layer(init, lambda params, **_: Bijection(forward, inverse, 3))


@recorded
def flatten(*, event: tuple[Count, ...]) -> Layer:
    """Data of the shape `event` -> latent vector [its size], row by row.

    Args:
        event: [H, W, C] or any other shape: the way back from a vector needs it.
    """

    def init(key, x, context=None):
        del key, context
        check_event("flatten", event, x)
        return {}

    def forward(z):
        return z.reshape(*z.shape[:-1], *event), _zeros(z, 1)

    def inverse(x):
        return x.reshape(*x.shape[: x.ndim - len(event)], math.prod(event)), _zeros(x, len(event))

    return Layer(init, lambda params, **_: Bijection(forward, inverse, event_ndims_in=1, event_ndims_out=len(event)))


def check_event(kind: str, event: tuple[int, ...], x: Array) -> None:
    """UserError: the examples of x [B, ...] do not have the shape that the layer was told."""
    if x.shape[1:] != tuple(event):
        raise UserError(f"{kind}: event={tuple(event)} does not fit what reaches this layer, events of the shape {x.shape[1:]}")


def _zeros(h: Array, event_ndims: int) -> Array:
    return jnp.zeros(h.shape[: h.ndim - event_ndims], h.dtype)
