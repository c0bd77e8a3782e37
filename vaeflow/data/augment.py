"""Random augmentation of training images, on the device inside the step's program. Validation and test images are never augmented.

flip  x[i, j] -> x[i, W - 1 - j] with probability 1/2: what diffusion models and flows are trained with on CIFAR-10 (Ho et al., 2020,
      arXiv:2006.11239; Song et al., 2021, arXiv:2011.13456; Chen et al., 2019, arXiv:1906.02735)
crop  pad by PAD pixels on every side, cut out H x W at a uniform offset: what classifiers are trained with (He et al., 2016,
      arXiv:1512.03385). Padded by reflection (Zagoruyko and Komodakis, 2016, arXiv:1605.07146), because a density model would learn
      a border of zeros
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vaeflow.data.source import Split
from vaeflow.errors import UserError
from vaeflow.model import Array

PAD = 4


def augment_batch(key: Array, x: Array, names: Sequence[str], slots: Array) -> Array:
    """Crop and flip every image by its own draw.

    Example i draws with fold_in(key, slots[i]): the draw depends on (seed, step, slot), not on the devices. The flips of ("flip",) and of
    ("flip", "crop") are the same.

    Args:
        key: of the step, see vaeflow/rng.py (augmentation).
        x: [B, H, W, C], any type.
        names: of "flip" and "crop", in any order.
        slots: [B] int32, places in the global batch.

    Returns:
        [B, H, W, C] in x's type.

    Example:
        augment_batch(jax.random.key(0), x, ("flip",), jnp.arange(len(x)))
    """

    def one(slot: Array, x: Array) -> Array:
        flip_key, crop_key = jax.random.split(jax.random.fold_in(key, slot))
        if "crop" in names:
            offset = jax.random.randint(crop_key, (2,), 0, 2 * PAD + 1)
            x = crop(x, offset[0], offset[1])
        return jnp.where(jax.random.bernoulli(flip_key), flip(x), x) if "flip" in names else x

    return jax.vmap(one)(slots, x)


def flip(x: Array) -> Array:
    """An image [H, W, C] mirrored left to right."""
    return x[:, ::-1]


def crop(x: Array, top: Array | int, left: Array | int) -> Array:
    """The H x W pixels from (top, left) of an image that is padded by PAD pixels of its reflection.

    Args:
        x: [H, W, C] with H, W > PAD.
        top, left: offsets in pixels, 0 .. 2 PAD; at PAD, PAD the image itself.

    Returns:
        [H, W, C] in x's type.
    """
    rows, columns = (_reflected(offset, size) for offset, size in ((top, x.shape[0]), (left, x.shape[1])))
    return x[rows][:, columns]


def _reflected(offset: Array | int, size: int) -> Array:
    """Indices [size] int32 into `size` pixels of offset - PAD, offset - PAD + 1, ..., reflected at the first and the last one."""
    index = jnp.abs(offset - PAD + jnp.arange(size))
    return size - 1 - jnp.abs(size - 1 - index)


def check_augment(names: Sequence[str], split: Split) -> None:
    """Check data.augment against the training examples.

    Args:
        names: config.data.augment.
        split: the training split.

    Raises:
        UserError: a name is repeated, or these examples cannot be augmented.
    """
    event = split.x.shape[1:]
    for leaf in ("x0", "mask"):
        if names and getattr(split, leaf) is not None:
            raise UserError(f"data.augment={tuple(names)} is invalid with {leaf}, which would not be changed alike; set it to ()")
    if len(set(names)) < len(names):
        raise UserError(f"data.augment={tuple(names)} has a name twice; known: crop, flip")
    if names and len(event) != 3:
        raise UserError(
            f"data.augment={tuple(names)} needs images [H, W, C], and these examples have the shape {tuple(event)}; known here: none"
        )
    if "crop" in names and min(event[:2]) <= PAD:
        raise UserError(
            f"data.augment={tuple(names)}: crop needs images larger than {PAD} pixels, and these are {tuple(event)}; known here: flip"
        )
