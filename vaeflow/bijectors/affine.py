"""RealNVP's affine coupling (Dinh, Sohl-Dickstein, Bengio 2016) with log-scales that are bounded by construction."""

from __future__ import annotations

import jax.numpy as jnp

from vaeflow.bijectors.core.layer import Layer
from vaeflow.bijectors.core.scalar_map import ScalarMap, bounded
from vaeflow.bijectors.coupling import Mask, coupling
from vaeflow.build import Positive
from vaeflow.nets.net import Net
from vaeflow.record import recorded


def affine(cap: float) -> ScalarMap:
    """x = z * exp(s) + t with s = cap * tanh(raw / cap), so |s| < cap: neither direction overflows, whatever the net says, and
    for small raw s = raw. theta = (t, raw)."""

    def log_scale(theta):
        return bounded(theta[1], cap)

    def forward(theta, z):
        s = log_scale(theta)
        return z * jnp.exp(s) + theta[0], s

    def inverse(theta, x):
        s = log_scale(theta)
        return (x - theta[0]) * jnp.exp(-s), -s

    return ScalarMap(2, forward, inverse)


@recorded
def affine_coupling(*, net: Net, mask: Mask, flip: bool = False, cap: Positive = 2.0) -> Layer:
    """x_moved = z_moved * exp(s(z_kept)) + t(z_kept), |s| < cap; log_det = sum(s).

    Args:
        net: the network that gives (t, s); a network on images for checkerboard and channel.
        mask: how the event is split, see coupling.py.
        flip: whether the two parts are exchanged.
        cap: bound of the log-scales.
    """
    return coupling(affine(cap), net, mask, flip)
