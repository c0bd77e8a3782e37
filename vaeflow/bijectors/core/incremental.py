"""The sequential direction of an autoregressive layer, exactly and at about the cost of one dense pass.

x_i = transformer(theta_i(x_0 .. x_(i-1)), z_i) must be found in order. Running the whole network D times costs D passes. But a unit
of degree d depends on x_0 .. x_(d-1) alone (nets/made.py), so step i computes

    the units of degree i in every hidden layer, from x_<i and the units of degree < = i one layer below,
    theta_i from the units of degree <= i of the last layer, then x_i,

and every weight is used once. A step's products are thin, so the degrees are cut into a few groups: what all earlier groups
contribute to a group is one large product, and only the small triangle within the group is scanned. Arrays are [units, B]:
a step writes whole rows. Compile time does not depend on D.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.model import Array
from vaeflow.nets.made import Made, degrees

# At most so many groups, of at least so many degrees: each is compiled apart.
_GROUPS, _DEGREES = 6, 8

Map = Callable[[Array, Array], tuple[Array, Array]]


def incremental(made: Made, size: int, params: Any, forward: Map, z: Array, context: Array | None) -> tuple[Array, Array]:
    """(x, log |dx/dz|), both of z's shape [B, D]; params those of MadeNet, forward(theta [size, B], z [B]) -> (x, log |dx/dz|) [B].
    context [B, C] or None."""
    b, d = z.shape
    dtype = z.dtype
    f = getattr(nn, made.activation)
    names = [*(f"dense_{i}" for i in range(len(made.hidden))), "head"]
    biases = [params[name]["bias"].astype(dtype)[:, None] for name in names]
    # [units, inputs]; a kernel is missing where nothing of it is seen, by a single input
    kernels = [
        jnp.asarray(params[name].get("kernel", jnp.zeros((1, len(bias))))).astype(dtype).T for name, bias in zip(names, biases, strict=True)
    ]
    if context is not None:
        biases[0] = biases[0] + (context.astype(dtype) @ params["context"]["kernel"].astype(dtype)).T
    kernels[-1] = kernels[-1].reshape(size, d, -1).swapaxes(0, 1).reshape(d * size, -1)
    biases[-1] = jnp.moveaxis(biases[-1].reshape(size, d, -1), 0, 1).reshape(d * size, -1)
    # By layer, the units' degrees, as the layer sees its inputs (below) and has its outputs (own); theta_i counts as degree i.
    own = [*(degrees(units, d, context is not None) for units in made.hidden), np.repeat(np.arange(d), size)]
    below = [np.arange(1, d + 1), *own[:-1]]

    rows = z.T
    known: list[list[Array]] = [[] for _ in kernels]  # by layer, the inputs that are computed: x, h_1, ..., h_L
    log_slopes = []
    for low, high in _groups(d):
        steps = []  # by layer: what each step of the group adds up and multiplies
        for kernel, bias, have, seen, mine in zip(kernels, biases, known, below, own, strict=True):
            here = slice(*np.searchsorted(mine, (low, high)))
            before = sum(len(h) for h in have)
            total = jnp.broadcast_to(bias[here], (here.stop - here.start, b))
            if before:
                total = total + kernel[here, :before] @ jnp.concatenate(have)
            inside = slice(before, int(np.searchsorted(seen, high, side="right" if seen is below[0] else "left")))
            steps.append(_padded(kernel[here, inside], total, seen[inside], mine[here], low, high, seen is below[0]))
        x, hidden, log_slope = _within(steps, f, forward, rows[low:high], size)
        for have, h, mine in zip(known, [x, *hidden], [None, *own[:-1]], strict=True):
            have.append(h if mine is None else _unpadded(h, mine, low, high))
        log_slopes.append(log_slope)
    return jnp.concatenate(known[0]).T, jnp.concatenate(log_slopes).T


def _groups(d: int) -> list[tuple[int, int]]:
    """Degrees 0 .. d - 1 in runs [low, high) of nearly equal length; one by one where degree 0, which has no units without a
    context, would leave half or a third of the slots empty."""
    n = d if d <= 3 else min(_GROUPS, max(d // _DEGREES, 1))
    cuts = np.linspace(0, d, n + 1).round().astype(int)
    return [(int(a), int(b)) for a, b in itertools.pairwise(cuts)]


def _places(mine: np.ndarray, low: int, high: int) -> np.ndarray:
    """Units of degrees low .. high - 1 at equal distances: [high - low, most units of a degree], positions in the run or -1."""
    counts = np.bincount(mine[(mine >= low) & (mine < high)] - low, minlength=high - low)
    first = np.cumsum(counts) - counts
    slot = np.arange(max(counts.max(initial=0), 1))
    return np.where(slot < counts[:, None], first[:, None] + slot, -1)


def _padded(kernel, total, seen, mine, low, high, inputs: bool):
    """One layer's (kernel [steps, slots, steps * slots below], total [steps, slots, B]), zeros in the empty slots and above the
    diagonal."""
    to = _places(mine, low, high)
    at = np.arange(high - low)
    source = at[:, None] if inputs else _places(seen, low, high)
    # An input x_j serves degrees > j; a unit of degree e serves degrees >= e.
    serves = (at[:, None] > at) if inputs else (at[:, None] >= at)
    serves = np.repeat(serves, source.shape[1], axis=1)[:, None, :]
    kernel, total = jnp.pad(kernel, (0, 1)), jnp.pad(total, ((0, 1), (0, 0)))  # empty slots are -1: the zeros at the end
    return jnp.where(serves, kernel[to][:, :, source.ravel()], 0), total[to]


def _unpadded(h: Array, mine: np.ndarray, low: int, high: int) -> Array:
    """[steps * slots, B] -> [units, B]."""
    places = _places(mine, low, high).ravel()
    return h[np.flatnonzero(places >= 0)]


def _within(steps, f, forward, z, size):
    """The scan over a group: (x [n, B], hidden layers [n * slots, B], log |dx/dz| [n, B])."""
    n, b = z.shape

    def step(carry, inputs):
        i, x, hidden = carry
        z_i, layers = inputs
        h, new = x, []
        for (weights, total), kept in zip(layers[:-1], hidden, strict=True):
            block = f(total + weights @ h)
            h = jax.lax.dynamic_update_slice_in_dim(kept, block, i * block.shape[0], 0)
            new.append(h)
        weights, total = layers[-1]
        x_i, log_slope = forward((total + weights @ h)[:size], z_i)
        return (i + 1, jax.lax.dynamic_update_index_in_dim(x, x_i, i, 0), new), log_slope

    start = (0, jnp.zeros_like(z), [jnp.zeros((n * total.shape[1], b), z.dtype) for _, total in steps[:-1]])
    (_, x, hidden), log_slope = jax.lax.scan(step, start, (z, steps))
    return x, hidden, log_slope
