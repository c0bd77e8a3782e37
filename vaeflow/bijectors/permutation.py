"""Permutations of the last axis: log_det = 0 (event rank 1)."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from vaeflow.bijectors.core.layer import Bijection, Layer
from vaeflow.record import recorded


@recorded
def permutation(*, order: Literal["reverse", "random"] = "reverse") -> Layer:
    """x_i = z_p(i).

    Args:
        order: reverse: p(i) = D - 1 - i, no parameters. random: p is drawn at init and stored under "fixed".
    """

    def init(key, x, context=None):
        del context
        if order == "reverse":
            return {}
        return {"fixed": {"permutation": jax.random.permutation(key, x.shape[-1])}}

    def bijector(params, **_):
        if order == "reverse":
            return Bijection(_reverse, _reverse, 1)
        p = params["fixed"]["permutation"]
        return Bijection(lambda z: (z[..., p], _zero(z)), lambda x: (x[..., jnp.argsort(p)], _zero(x)), 1)

    return Layer(init, bijector)


def _reverse(h):
    return h[..., ::-1], _zero(h)


def _zero(h):
    return jnp.zeros(h.shape[:-1], h.dtype)
