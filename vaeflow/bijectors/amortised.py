"""Parameters that an encoder gives: what planar, radial and Sylvester flows share.

    theta(c) = free + c V,        c [..., C] the context; without one theta = free

Both are trained. As posteriors over the latent (Rezende and Mohamed 2015) such layers have parameters of their own for every example.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from vaeflow.errors import UserError
from vaeflow.model import Array, Params

Shapes = dict[str, tuple[int, ...]]

# Slopes stay above it: log_det and the inverse are bounded for any parameters.
MIN_SLOPE = 1e-3


def needs_vectors(kind: str, x: Array) -> None:
    """A UserError unless x is [B, D]."""
    if x.ndim != 2:
        raise UserError(f"a {kind} layer needs events that are vectors [D]; here they have the shape {x.shape[1:]}")


def init(key: Array, context: Array | None, start: dict[str, Array]) -> Params:
    """free [P], V [C, P]; theta starts about `start`: V is a tenth of what LeCun's initialiser gives."""
    free = jnp.concatenate([jnp.ravel(a) for a in start.values()])
    params = {"free": free}
    if context is not None:
        params["context"] = 0.1 * jax.nn.initializers.lecun_normal()(key, (context.shape[-1], free.size))
    return params


def values(params: Params, shapes: Shapes, context: Array | None, dtype: jnp.dtype) -> dict[str, Array]:
    """theta(c) by name, each [..., *shape] with the context's leading axes; shapes in the order of `start`."""
    theta = params["free"].astype(dtype)
    if context is not None:
        theta = theta + context.astype(dtype) @ params["context"].astype(dtype)
    found, first = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        found[name] = theta[..., first : first + size].reshape(*theta.shape[:-1], *shape)
        first += size
    return found


def positive(a: Array) -> Array:
    """softplus with the value 1 at a = 0."""
    return jax.nn.softplus(a + math.log(math.e - 1))


def above_minus_one(a: Array) -> Array:
    """Increasing, 0 at a = 0, and above -(1 - MIN_SLOPE): a product with it, times slopes in (0, 1], keeps 1 + ... positive."""
    return (1 - MIN_SLOPE) * (positive(a) - 1)
