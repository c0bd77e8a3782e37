"""NICE (Dinh, Krueger, Bengio 2014): additive coupling, whose log_det is zero, and the diagonal scaling that follows it."""

from __future__ import annotations

import jax.numpy as jnp

from vaeflow.bijectors.core.layer import Bijection, Layer
from vaeflow.bijectors.core.scalar_map import ScalarMap, bounded
from vaeflow.bijectors.coupling import Mask, coupling
from vaeflow.nets.net import Net
from vaeflow.record import recorded


def additive() -> ScalarMap:
    """x = z + t."""
    return ScalarMap(1, lambda theta, z: (z + theta[0], jnp.zeros_like(z)), lambda theta, x: (x - theta[0], jnp.zeros_like(x)))


@recorded
def additive_coupling(*, net: Net, mask: Mask, flip: bool = False) -> Layer:
    """x_moved = z_moved + t(z_kept); log_det = 0.

    Args:
        net: the network that gives t; a network on images for checkerboard and channel.
        mask: how the event is split, see coupling.py.
        flip: whether the two parts are exchanged.
    """
    return coupling(additive(), net, mask, flip)


@recorded
def nice_scaling() -> Layer:
    """x = z * exp(s), s = bounded(log_scale), [D] trained, over the last axis; log_det = sum(s) (event rank 1). Starts as the identity."""

    def init(key, x, context=None):
        del key, context
        return {"log_scale": jnp.zeros(x.shape[-1])}

    def bijector(params, **_):
        def run(h, sign):
            log_scale = sign * bounded(params["log_scale"].astype(h.dtype))
            return h * jnp.exp(log_scale), jnp.broadcast_to(jnp.sum(log_scale), h.shape[:-1])

        return Bijection(lambda z: run(z, 1), lambda x: run(x, -1), 1)

    return Layer(init, bijector)
