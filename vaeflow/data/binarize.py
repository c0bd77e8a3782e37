"""Grey values to black and white: x in 0 .. levels - 1 is read as an intensity p = x / (levels - 1).

threshold  b = [x >= levels / 2]
static     b ~ Bernoulli(p), drawn once and for all (Salakhutdinov and Murray, 2008, fixed one such draw of MNIST)
dynamic    b ~ Bernoulli(p), drawn again for every step (Burda, Grosse, Salakhutdinov, 2015); done on the device
"""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.model import Array

_SEED = 20080705
# Rows that share a generator: the draw of an example depends on its row in the split alone, not on how the rows come in.
ROWS = 1024


def binarized(x: np.ndarray, levels: int, method: str, split: str, start: int = 0) -> np.ndarray:
    """Rows start, start + 1, ... of a split as uint8 in {0, 1}. `start` is a multiple of ROWS.

    The static draw is a property of the data (seeded by the split's name and the row), the same for every run.
    """
    if method == "threshold":
        return (x >= levels / 2).astype(np.uint8)
    out = np.empty(x.shape, np.uint8)
    for first in range(0, len(x), ROWS):
        part = np.asarray(x[first : first + ROWS])
        rng = np.random.default_rng((_SEED, zlib.crc32(split.encode()), (start + first) // ROWS))
        out[first : first + ROWS] = rng.random(part.shape, np.float32) * (levels - 1) < part
    return out


def binarize_batch(key: Array, x: Array, levels: int, slots: Array) -> Array:
    """One draw of Bernoulli(x / (levels - 1)) per element of x [B, *event], as 0 or 1 in x's type.

    Example i draws with fold_in(key, slots[i]). In training, `key` has the step folded in and `slots` are the places in the
    global batch: the draw depends on (seed, step, slot), not on the devices. In evaluation, `slots` are the examples' indices.
    """

    def one(slot: Array, x: Array) -> Array:
        p = x.astype(jnp.float32) / (levels - 1)
        return jax.random.bernoulli(jax.random.fold_in(key, slot), p).astype(x.dtype)

    return jax.vmap(one)(slots, x)
