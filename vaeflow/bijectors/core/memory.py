"""A scan over layers, and what its backward pass keeps: everything, the inputs of the layers, or only the last output.

    h_i, d_i = there(p_i, context, h_{i-1})      i = 1..n        ->  h_n, sum_i d_i

The derivative of a plain scan keeps what every layer computes, O(n) memory. `invertible_scan` keeps h_n alone; its backward pass
walks from i = n to 1, recovers h_{i-1} = back(p_i, context, h_i), and takes the vjp of that one layer: O(1) memory in n, at the
price of one more pass in each direction (Gomez et al. 2017, "The Reversible Residual Network"). The gradient is taken at the
inputs as they are recovered, so its error is that of `back`: rounding, which badly conditioned layers amplify, or the tolerance
of a numerical inverse.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.model import Array

Direction = Callable[[Any, Any, Array], tuple[Array, Array]]  # (parameters of one layer, context, h) -> (h, log_det)


class Repetition(NamedTuple):
    """n layers on events of rank `rank`, from the last to the first if `reverse`."""

    n: int
    rank: int
    reverse: bool


def layer_scan(there: Direction, run: Repetition, stacked: Any, context: Any, h: Array, remat: bool = False) -> tuple[Array, Array]:
    """(h_n, sum of log_det) of the layers whose parameters are `stacked` [n, ...]. `remat`: the backward pass computes again what
    one layer computes; a checkpoint around the whole scan would compute all of it again at once and save nothing."""

    def step(carry, p):
        h, log_det = there(p, context, carry[0])
        return (h, carry[1] + log_det), None

    step = jax.checkpoint(step, prevent_cse=False) if remat else step
    start = (h, jnp.zeros(h.shape[: h.ndim - run.rank], h.dtype))
    return jax.lax.scan(step, start, stacked, length=run.n, reverse=run.reverse)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def invertible_scan(there: Direction, back: Direction, run: Repetition, stacked: Any, context: Any, h: Array) -> tuple[Array, Array]:
    """`layer_scan` that recovers its activations by inversion; see the module's docstring.

    `there` and `back` are the layer's two directions and close over nothing traced: everything with a gradient is an argument.
    Integers and PRNG keys among the parameters and in `context` (a tree, or None) have none. Reverse-mode derivatives only.
    """
    del back
    return layer_scan(there, run, stacked, context, h)


def _forward(there, back, run, stacked, context, h):
    del back
    out = layer_scan(there, run, stacked, context, h)
    return out, (stacked, context, out[0])


def _backward(there, back, run, kept, gradient):
    stacked, context, out = kept
    gradient, log_det_gradient = gradient

    def step(carry, p):
        h, gradient, so_far = carry
        h = back(p, context, h)[0]
        _, pull = jax.vjp(there, p, context, h)
        of_p, of_context, gradient = pull((gradient, log_det_gradient))
        return (h, gradient, jax.tree.map(jnp.add, so_far, _real(of_context))), _real(of_p)

    none_yet = jax.tree.map(lambda a: jnp.zeros_like(a) if jnp.issubdtype(a.dtype, jnp.inexact) else None, context)
    start = (out, gradient, none_yet)
    (_, gradient, of_context), of_stacked = jax.lax.scan(step, start, stacked, length=run.n, reverse=not run.reverse)
    return of_stacked, of_context, gradient


def _real(gradients: Any) -> Any:
    """None, which custom_vjp reads as no gradient, in place of float0 arrays, which a scan does not carry."""
    return jax.tree.map(lambda g: None if g.dtype == jax.dtypes.float0 else g, gradients)


invertible_scan.defvjp(_forward, _backward)
