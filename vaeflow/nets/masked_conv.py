"""Masked convolutions whose Jacobian is triangular, its diagonal positive (Song, Meng, Ermon 2019, "MintNet"; the masks are those of
van den Oord et al. 2016, "Pixel recurrent neural networks").

The entries of an image [H, W, C] stand in raster order, the channels of a pixel one after the other. A layer between n and m copies of
such an image, the channel c of the copy i at the index i C + c, lets the entry (p, c) of every output copy see

    all channels of the pixels before p within the kernel, the channels before c of p          any weight
    the channel c of p                                                                          positive(raw) / n

so the Jacobian between any two copies is lower triangular. Taps after p would all be masked, so rows of taps below p do not exist:
a kernel k x k is stored as [(k + 1) / 2, k].
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.model import Array
from vaeflow.nets.convolve import Pads


def masks(size: int, copies: tuple[int, int], channels: int) -> tuple[np.ndarray, np.ndarray]:
    """(free, diagonal) booleans [r + 1, size, n C, m C], r = size // 2: entries of any sign, entries on the Jacobian's diagonal."""
    r = size // 2
    before = (np.arange(r + 1)[:, None] * size + np.arange(size) < r * size + r)[:, :, None, None]
    here = np.zeros((r + 1, size, 1, 1), bool)
    here[r, r] = True
    earlier = np.tile(np.triu(np.ones((channels, channels), bool), 1), copies)
    return before | (here & earlier), here & np.tile(np.eye(channels, dtype=bool), copies)


def raw_kernel(key: Array, size: int, copies: tuple[int, int], channels: int) -> Array:
    """Initial parameters of `triangular`: free entries of variance 1 / (their mean number per output), the others about 0."""
    free, _ = masks(size, copies, channels)
    scale = np.where(free, 1 / max(1.0, free.sum() / free.shape[-1]) ** 0.5, 0.5)
    return jax.random.normal(key, free.shape) * jnp.asarray(scale, jnp.float32)


def triangular(raw: Array, copies: tuple[int, int], channels: int, positive: Callable[[Array], Array]) -> tuple[Array, Array]:
    """raw [r + 1, size, n C, m C] -> (kernel of the same shape, its diagonal taps as a matrix [n C, m C])."""
    size = raw.shape[1]
    free, diagonal = masks(size, copies, channels)
    slopes = jnp.where(diagonal, positive(raw) / copies[0], 0)
    return jnp.where(free, raw, slopes), slopes[-1, size // 2]


def pads(size: int) -> Pads:
    """The zeros around an image that keep its size under a kernel [r + 1, size] whose last row is the pixel's own."""
    r = size // 2
    return (r, 0), (r, r)
