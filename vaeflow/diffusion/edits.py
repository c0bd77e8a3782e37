"""Edits: some coordinates of an example are known, in an orthonormal basis, and the rest is drawn anew.

    left, right, top, bottom, center, random    inpainting: the basis is that of the entries; known are those outside the region
    colorize         the basis of the colours whose first axis is (1, 1, 1) / sqrt 3; known is the grey picture
    super_resolve    that of patches of size x size pixels whose first axis is (1, ..., 1) / size; known are the patches' means

An edit is a change of predicted data, data -> B^-1(where(mask, B x, B data)): of a sampler's prediction at every t (guidance.py), or of
what a flow map returns in one step. Both see f^-1 of the data, where the layer f must act on every entry alone and alike within a colour
pixel or a patch, as `scale` does.

References: Song et al. 2021 (arXiv 2011.13456), appendices I.2 and I.3; Song et al. 2023 (arXiv 2303.01469), algorithm 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vaeflow.build import Count, Range, Seed
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.record import recorded

Change = Callable[[Array], Array]
Share = Annotated[float, Range(0, 1, open_low=True, open_high=True)]


def _same(x: Array) -> Array:
    return x


class Measurement(NamedTuple):
    """What is known of x [*event].

    mask  True where a coordinate is known, of the shape that `into` gives
    into  x [*event] -> its coordinates in an orthonormal basis
    back  the inverse of into
    """

    mask: np.ndarray
    into: Change = _same
    back: Change = _same


class Edit(NamedTuple):
    """on: the shape of one example -> Measurement; a UserError if the edit does not apply to it."""

    on: Callable[[tuple[int, ...]], Measurement]
    spec: Any = None  # how it was made, see record.py


def replaced(known: Measurement, data: Array, x: Array) -> Array:
    """`data` with the known coordinates of x; both [*event].

    Example:
        known = left().on((8, 8, 1))
        edited = jax.vmap(replaced, (None, 0, 0))(known, predicted, x)
    """
    return known.back(jnp.where(known.mask, known.into(x), known.into(data)))


def flattened(known: Measurement, event: tuple[int, ...]) -> Measurement:
    """The measurement of x.reshape(-1)."""
    return Measurement(known.mask, lambda x: known.into(x.reshape(event)), lambda z: known.back(z).reshape(-1))


def _missing(size: int, share: float) -> int:
    """share of `size`, rounded; UserError: nothing or everything."""
    if not 0 < (count := round(share * size)) < size:
        raise UserError(f"share={share:g} of {size} is {count}; something must be missing, and something known")
    return count


def _columns(event: tuple[int, ...]) -> int:
    """The axis of the columns of images [H, W, C] or of the entries of vectors [D]."""
    if len(event) not in (1, 3):
        raise UserError(f"an edit of a region needs images [H, W, C] or vectors, and these examples have the shape {event}")
    return len(event) // 2


def _needs_image(event: tuple[int, ...]) -> None:
    if len(event) != 3:
        raise UserError(f"this edit needs images [H, W, C], and these examples have the shape {event}")


def _outside(event: tuple[int, ...], axis: int, start: int, stop: int) -> np.ndarray:
    """[*event], False for start <= index < stop along the axis."""
    index = np.arange(event[axis]).reshape([-1 if i == axis else 1 for i in range(len(event))])
    return np.broadcast_to((index < start) | (index >= stop), event)


@recorded
def left(*, share: Share = 0.5) -> Edit:
    """The left `share` of an image's columns, or of a vector's entries, is missing."""
    return Edit(lambda event: Measurement(_outside(event, axis := _columns(event), 0, _missing(event[axis], share))))


@recorded
def right(*, share: Share = 0.5) -> Edit:
    """The right `share` of an image's columns, or of a vector's entries, is missing: of points of the plane x_2, given x_1."""
    return Edit(
        lambda event: Measurement(_outside(event, axis := _columns(event), event[axis] - _missing(event[axis], share), event[axis]))
    )


@recorded
def top(*, share: Share = 0.5) -> Edit:
    """The upper `share` of an image's rows is missing."""

    def on(event):
        _needs_image(event)
        return Measurement(_outside(event, 0, 0, _missing(event[0], share)))

    return Edit(on)


@recorded
def bottom(*, share: Share = 0.5) -> Edit:
    """The lower `share` of an image's rows is missing."""

    def on(event):
        _needs_image(event)
        return Measurement(_outside(event, 0, event[0] - _missing(event[0], share), event[0]))

    return Edit(on)


@recorded
def center(*, share: Share = 0.5) -> Edit:
    """A box in the middle of an image is missing, `share` of its height and of its width."""

    def on(event):
        _needs_image(event)
        counts = [_missing(size, share) for size in event[:2]]
        starts = [(size - count) // 2 for size, count in zip(event, counts, strict=False)]
        rows, columns = (_outside(event, axis, starts[axis], starts[axis] + counts[axis]) for axis in (0, 1))
        return Measurement(rows | columns)

    return Edit(on)


@recorded
def random(*, share: Share = 0.5, seed: Seed = 0) -> Edit:
    """A random `share` of an image's pixels, or of a vector's entries, is missing: the same ones of every example."""

    def on(event):
        places = event[:-1] if _columns(event) else event
        size = int(np.prod(places))
        order = np.random.default_rng(seed).permutation(size)
        mask = (order >= _missing(size, share)).reshape(places)
        return Measurement(np.broadcast_to(mask[..., None], event) if len(event) == 3 else mask)

    return Edit(on)


def _mean_first(n: int) -> np.ndarray:
    """[n, n] orthonormal, symmetric and its own inverse, with (1, ..., 1) / sqrt n as its first row: a reflection."""
    towards = np.full(n, n**-0.5) - np.eye(n)[0]
    return np.eye(n) - 2 * np.outer(towards, towards) / (towards @ towards)


@recorded
def colorize() -> Edit:
    """The mean of an RGB image's three channels is known."""

    def on(event):
        if len(event) != 3 or event[-1] != 3:
            raise UserError(f"colorize needs images with three channels, and these examples have the shape {event}")
        basis = _mean_first(3)

        def turn(x):
            return x @ basis.astype(x.dtype)

        return Measurement(np.broadcast_to(np.arange(3) == 0, event), turn, turn)

    return Edit(on)


@recorded
def super_resolve(*, size: Count = 2) -> Edit:
    """The mean of every patch of size x size pixels is known, in each channel: super-resolution."""

    def on(event):
        if len(event) != 3 or size < 2 or event[0] % size or event[1] % size:
            raise UserError(f"super_resolve with size={size} needs images whose sides are multiples of size > 1, and these are {event}")
        h, w, c = event[0] // size, event[1] // size, event[2]
        basis = _mean_first(size * size)

        def into(x):
            patches = x.reshape(h, size, w, size, c).transpose(0, 2, 4, 1, 3).reshape(h, w, c, size * size)
            return patches @ basis.astype(x.dtype)

        def back(z):
            patches = (z @ basis.astype(z.dtype)).reshape(h, w, c, size, size)
            return patches.transpose(0, 3, 1, 4, 2).reshape(event)

        return Measurement(np.broadcast_to(np.arange(size * size) == 0, (h, w, c, size * size)), into, back)

    return Edit(on)


EDITS: dict[str, Callable[..., Edit]] = {
    "left": left,
    "right": right,
    "top": top,
    "bottom": bottom,
    "center": center,
    "random": random,
    "colorize": colorize,
    "super_resolve": super_resolve,
}
