"""Embedding: features of a time t, which a continuous-time model puts into the context of its network.

    features(t) = (sin(w_i t), cos(w_i t)),  i = 1 .. width / 2

    fourier      w_i = 2 pi scale n_i, n_i ~ N(0, 1) drawn once (Tancik et al. 2020; Song et al. 2020 with scale 16)
    sinusoidal   w_i = times period^(-(i - 1) / (width / 2 - 1)): the positions of Vaswani et al. 2017 as Ho et al. 2020 use them

The frequencies are parameters under "fixed": a run stores them, and no optimiser changes them. A model keeps the tree of `init` whole:

    params["time"] = embedding.init(key)                       # {"fixed": {"frequencies": [width / 2]}}
    context = embedding.features(params["time"], t)            # [..., width]; beside it labels as one-hot vectors, or tokens
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.build import Count, Positive
from vaeflow.errors import UserError
from vaeflow.model import Array, Params
from vaeflow.record import recorded


class Embedding(NamedTuple):
    """Two pure functions.

    init: key -> params, a tree with at least one leaf; leaves below "fixed" are never trained.
    features: (params, t [...]) -> [..., width]. In float32, or in float64 for float64 times, whatever the networks compute in: in
        bfloat16, times in [0.5, 1) differ by 1/256 at least, and a frequency of 1,000 turns that into several radians.
    """

    init: Callable[[Array], Params]
    features: Callable[[Params, Array], Array]
    spec: Any = None  # how it was made, see record.py


@recorded
def fourier(*, width: Count = 256, scale: Positive = 16.0) -> Embedding:
    """Random Fourier features of a time of order 1: t itself, or log sigma.

    width: number of features, even. scale: standard deviation of the frequencies, in periods per unit of time.

    References: Tancik et al. 2020 (2006.10739); Song et al. 2020 (2011.13456), appendix C.
    """
    _even("fourier", width, 2)

    def init(key: Array) -> Params:
        return _fixed(2 * math.pi * scale * jax.random.normal(key, (width // 2,), jnp.float32))

    return Embedding(init, _features)


@recorded
def sinusoidal(*, width: Count = 128, times: Positive = 1000.0, period: Positive = 10_000.0) -> Embedding:
    """Sinusoidal features of a time in [0, 1]; the key of `init` is not used.

    width: number of features, even. times: factor of t, for DDPM's 1,000 steps. period: ratio of the highest to the lowest frequency.

    References: Vaswani et al. 2017 (1706.03762), section 3.5; Ho et al. 2020 (2006.11239), appendix B.
    """
    _even("sinusoidal", width, 4)

    def init(_: Array) -> Params:
        return _fixed(times * period ** -jnp.linspace(0.0, 1.0, width // 2, dtype=jnp.float32))

    return Embedding(init, _features)


def _fixed(frequencies: Array) -> Params:
    return {"fixed": {"frequencies": frequencies}}


def _features(params: Params, t: Array) -> Array:
    t = jnp.asarray(t)
    angle = t.astype(jnp.promote_types(t.dtype, jnp.float32))[..., None] * params["fixed"]["frequencies"]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def _even(kind: str, width: int, least: int) -> None:
    if width % 2 or width < least:
        raise UserError(f"{kind}: width={width} is invalid; it must be an even number >= {least}")
