"""A scan over invertible layers whose backward pass keeps no activations: it recovers them from the output.

    h_i, d_i = there(p_i, context, h_{i-1})      i = 1..n        ->  h_n, sum_i d_i

The derivative of a plain scan keeps what every layer computes, O(n) memory. Here only h_n is kept; the backward pass walks from
i = n to 1, h_{i-1} = back(p_i, context, h_i), and takes the vjp of that one layer: O(1) memory in n, at the price of one more
pass in each direction (Gomez et al. 2017, "The Reversible Residual Network"). The gradient is taken at the activations as they
are recovered, so its error is that of `back`: rounding, which badly conditioned layers amplify; for a numerical inverse its tolerance.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vaeflow.model import Array

Direction = Callable[[Any, Any, Array], tuple[Array, Array]]  # (parameters of one layer, context, h) -> (h, log_det)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def invertible_scan(there: Direction, back: Direction, n: int, reverse: bool, stacked: Any, context: Any, h: Array) -> tuple[Array, Array]:
    """(h_n, sum of log_det) of n layers whose parameters are `stacked` [n, ...], run from the last to the first if `reverse`.

    `there` and `back` are the layer's two directions and close over nothing traced: everything with a gradient is an argument.
    Integers and PRNG keys among the parameters and in `context` (a tree, or None) have none. Reverse-mode derivatives only.
    """

    def step(carry, p):
        h, total = carry
        h, log_det = there(p, context, h)
        return (h, total + log_det), None

    shape = jax.eval_shape(there, jax.tree.map(lambda a: a[0], stacked), context, h)[1]
    return jax.lax.scan(step, (h, jnp.zeros(shape.shape, shape.dtype)), stacked, length=n, reverse=reverse)[0]


def _forward(there, back, n, reverse, stacked, context, h):
    out = invertible_scan(there, back, n, reverse, stacked, context, h)
    return out, (stacked, context, out[0])


def _backward(there, back, n, reverse, kept, gradient):
    stacked, context, out = kept
    gradient, log_det_gradient = gradient

    def step(carry, p):
        h, gradient, so_far = carry
        h = back(p, context, h)[0]
        of_p, of_context, gradient = jax.vjp(there, p, context, h)[1]((gradient, log_det_gradient))
        return (h, gradient, jax.tree.map(jnp.add, so_far, _real(of_context))), _real(of_p)

    none_yet = jax.tree.map(lambda a: jnp.zeros_like(a) if jnp.issubdtype(a.dtype, jnp.inexact) else None, context)
    (_, gradient, of_context), of_stacked = jax.lax.scan(step, (out, gradient, none_yet), stacked, length=n, reverse=not reverse)
    return of_stacked, of_context, gradient


def _real(gradients):
    """None, which custom_vjp reads as no gradient, in place of the float0 arrays, which a scan cannot carry."""
    return jax.tree.map(lambda g: None if g.dtype == jax.dtypes.float0 else g, gradients)


invertible_scan.defvjp(_forward, _backward)
