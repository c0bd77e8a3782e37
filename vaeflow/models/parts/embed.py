"""A latent as real numbers, for the model of a second stage (vaeflow/models/two_stage.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from vaeflow.model import Array, Params


class Embed(NamedTuple):
    """Between a model's latent z and the real-valued y that a second stage models. Params are the model's own (`Frozen.of`).

    shape  of one y: [h, w, c] of a latent on a grid
    into   (params, z [..., D]) -> y [..., *shape]; of a real-valued z the same numbers, so that densities of z and y are equal
    back   (params, y [..., *shape]) -> z [..., D]; of codes, those of the nearest vectors of the codebook
    """

    shape: tuple[int, ...]
    into: Callable[[Params, Array], Array]
    back: Callable[[Params, Array], Array]


def of_vector(shape: tuple[int, ...]) -> Embed:
    """The Embed of a real-valued z [..., D], D the size of `shape`: it is reshaped."""
    rank = len(shape)

    def back(params, y):
        return y.reshape(*y.shape[: y.ndim - rank], -1)

    return Embed(shape, lambda params, z: z.reshape(*z.shape[:-1], *shape), back)
