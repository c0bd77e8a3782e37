"""Coupling layers (Dinh et al. 2014, 2016): one part of the event is kept and says how the rest is mapped.

    x_kept = z_kept,    x_moved = transformer(theta, z_moved),    theta = net(z_kept, context)

The Jacobian is triangular, so log_det is the sum of the transformer's elementwise terms; the inverse costs what the forward
direction costs. A new coupling is a Transformer and a registry line. Masks, D the size of the last axis:

    half          vectors [D]; the first D // 2 numbers are kept
    alternating   vectors [D]; the numbers 0, 2, 4, ... are kept
    checkerboard  images [H, W, C]; the pixels with even row + column are kept; the net sees the others as zeros
    channel       images [H, W, C]; the first C // 2 channels are kept

`flip` exchanges the two parts. Except for checkerboard the two parts are static slices: the net never sees what moves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp

from vaeflow.bijectors.core.layer import Bijection, Layer, sum_event
from vaeflow.bijectors.core.scalar_map import ScalarMap
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.nets.net import Net

Mask = Literal["half", "alternating", "checkerboard", "channel"]
RANK = {"half": 1, "alternating": 1, "checkerboard": 3, "channel": 3}


class Parts(NamedTuple):
    """kept: what the net sees; moved: what is mapped; join: moved' -> the event with it; only: elementwise terms of moved with
    those that do not count set to zero."""

    kept: Array
    moved: Array
    join: Callable[[Array], Array]
    only: Callable[[Array], Array]


def parts(x: Array, mask: Mask, flip: bool) -> Parts:
    """The two parts of x [..., *event]."""
    event = x.shape[x.ndim - RANK[mask] :]
    split = event[0] * event[1] if mask == "checkerboard" else event[-1]
    if split < 2:
        what = "one pixel" if mask == "checkerboard" else "one channel" if mask == "channel" else "dimension 1"
        raise UserError(f"a coupling with mask={mask!r} cannot split events of {what}; at least 2 are needed")
    if mask == "checkerboard":
        even = (jnp.arange(event[0])[:, None] + jnp.arange(event[1])) % 2 == 0
        keep = (even != flip)[:, :, None]
        return Parts(jnp.where(keep, x, 0), x, lambda moved: jnp.where(keep, x, moved), lambda term: jnp.where(keep, 0, term))
    if mask == "alternating":
        pair, together = (x[..., 0::2], x[..., 1::2]), _interleave
    else:
        pair, together = tuple(jnp.split(x, [split // 2], axis=-1)), lambda a, b: jnp.concatenate([a, b], axis=-1)
    if flip:
        return Parts(pair[1], pair[0], lambda moved: together(moved, pair[1]), lambda term: term)
    return Parts(pair[0], pair[1], lambda moved: together(pair[0], moved), lambda term: term)


def _interleave(even: Array, odd: Array) -> Array:
    """[a0, a1, ...], [b0, b1, ...] -> [a0, b0, a1, b1, ...]; even may be one longer."""
    size = even.shape[-1] + odd.shape[-1]
    if odd.shape[-1] < even.shape[-1]:
        odd = jnp.pad(odd, [(0, 0)] * (odd.ndim - 1) + [(0, 1)])
    both = jnp.stack([even, odd], axis=-1)
    return both.reshape(*both.shape[:-2], -1)[..., :size]


def coupling(transformer: ScalarMap, net: Net, mask: Mask, flip: bool) -> Layer:
    """The coupling layer of a transformer; params {"net": the linen parameters}. It starts as the identity."""
    rank = RANK[mask]

    def module(moved: Array):
        return net.module((transformer.size, *moved.shape[moved.ndim - rank :]), rank, True)

    def init(key, x, context=None):
        if x.ndim - 1 < rank or (context is not None and x.ndim - 1 > rank):  # a context [B, C] could not be told from the wider event
            needs = "images [H, W, C]" if rank == 3 else "vectors [D]"
            raise UserError(f"a coupling with mask={mask!r} needs events that are {needs}; here they have the shape {x.shape[1:]}")
        if context is not None and context.ndim >= 4 and context.shape[1:3] != x.shape[1:3]:
            raise UserError(f"a context that is an image of {context.shape[1:]} does not fit events of the shape {x.shape[1:]}")
        kept, moved, _, _ = parts(x, mask, flip)
        theta, found = module(moved).init_with_output(key, kept[:1], None if context is None else context[:1])
        needed = (1, *moved.shape[1 : moved.ndim - rank], transformer.size, *moved.shape[moved.ndim - rank :])
        if jnp.shape(theta) != needed:
            what = (
                "without a context"
                if context is None
                else f"with contexts of the shape {context.shape[1:]}; images need a convolutional one"
            )
            raise UserError(f"the network gives {jnp.shape(theta)[1:]} where {needed[1:]} is needed, {what}")
        return {"net": found["params"]}

    def bijector(params, context=None, **_):
        def run(x, function):
            kept, moved, join, only = parts(x, mask, flip)
            theta = jnp.asarray(module(moved).apply({"params": params["net"]}, kept, context))
            if rank == 1:  # [..., size, D'] -> [size, D', ...]: loops over the batch, and one plain transposition of the head's output
                y, log_det = function(jnp.moveaxis(theta, (-2, -1), (0, 1)), jnp.moveaxis(moved, -1, 0))
                return join(jnp.moveaxis(y, 0, -1)), jnp.sum(log_det, axis=0)
            y, log_det = function(jnp.moveaxis(theta, theta.ndim - 1 - rank, 0), moved)
            return join(y), sum_event(only(log_det), rank)

        return Bijection(lambda z: run(z, transformer.forward), lambda x: run(x, transformer.inverse), rank)

    return Layer(init, bijector)
