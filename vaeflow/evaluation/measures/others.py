"""Sets that a model was not trained on, in the shape and on the grey values of a run's examples, to be told from them.

noise       every element uniform: over the grey values, or between the extremes that it has in the training data
inverted    black for white, top - x
flipped     images mirrored left to right
shuffled    the pixels of each example in an order of its own (all channels of a pixel together)
NAME        the split `test` of an image set of TensorFlow Datasets in data.dir: grey or coloured as needed, resized by area, its 256
            grey values brought to the run's (by data.binarize for two; there a threshold where the source itself is black and white)
FILE.npz    its array `x`, or the only one
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vaeflow import data
from vaeflow.config import plain
from vaeflow.data import Split
from vaeflow.data.binarize import binarized
from vaeflow.errors import UserError, unknown
from vaeflow.evaluation.information import evenly
from vaeflow.evaluation.measures.measure import Evaluation


def other(run: Evaluation, name: str) -> Split:
    """As many examples of the set `name` as the run has (fewer where the set is smaller), with the run's contexts, x0 and masks."""
    if name in MADE:
        x = MADE[name](run, np.random.default_rng((run.seed, zlib.crc32(name.encode()))))
    elif name.endswith(".npz"):
        x = _file(run, Path(name).expanduser())
    elif run.config.data.dir and name and run.split.x.ndim == 4:
        x = _images(run, name)
    else:
        raise unknown("anomaly.against", name, (*MADE, "FILE.npz", "an image set in config.data.dir, where x are images"))
    x = evenly(Split(x), len(run.split.x)).x
    given = {name: array[: len(x)] for name, array in run.split.arrays().items() if name not in ("x", "label")}
    return Split(np.asarray(x, run.split.x.dtype), **given)


def _noise(run: Evaluation, rng: np.random.Generator) -> np.ndarray:
    shape, levels = run.split.x.shape, run.source.levels
    if levels:
        return rng.integers(0, levels, shape)
    train = np.asarray(run.source.train.x)
    return rng.uniform(train.min(0), train.max(0), shape)


def _inverted(run: Evaluation, rng: np.random.Generator) -> np.ndarray:
    del rng
    if not run.source.levels:
        raise UserError("anomaly.against='inverted' needs grey values, but these data are continuous")
    return run.source.levels - 1 - np.asarray(run.split.x)


def _flipped(run: Evaluation, rng: np.random.Generator) -> np.ndarray:
    del rng
    if run.split.x.ndim < 4:
        raise UserError(f"anomaly.against='flipped' needs images, but examples have the shape {run.split.x.shape[1:]}")
    return run.split.x[:, :, ::-1]


def _shuffled(run: Evaluation, rng: np.random.Generator) -> np.ndarray:
    x = np.asarray(run.split.x)
    pixels = x.reshape(len(x), -1, x.shape[-1] if x.ndim == 4 else 1)  # [N, H W, C]
    order = rng.random(pixels.shape[:2]).argsort(1)
    return np.take_along_axis(pixels, order[:, :, None], 1).reshape(x.shape)


MADE: dict[str, Callable[[Evaluation, np.random.Generator], np.ndarray]] = {
    "noise": _noise,
    "inverted": _inverted,
    "flipped": _flipped,
    "shuffled": _shuffled,
}


def _images(run: Evaluation, name: str) -> np.ndarray:
    section = dict(kind="tfds", name=name, path="", label="", train="test", val="", test="", context="none", binarize="none", batch=1)
    section |= dict(x={}, x0={}, pairing="rows")
    try:
        found = data.load(plain(run.config.data) | section, run.seed)
    except UserError as error:
        raise UserError(f"anomaly.against={name!r}: {error}") from None
    x = evenly(found.train, len(run.split.x)).x * (255 // (found.levels - 1))
    return regrey(resized(x, run.split.x.shape[1:]), run.source.levels, run.config.data.binarize)


def resized(x: np.ndarray, event: tuple[int, ...]) -> np.ndarray:
    """Images [N, H', W', C'] uint8 as [N, *event]: grey where event has one channel, each new pixel the mean of the area that it covers."""
    from PIL import Image

    height, width, channels = event

    def one(image: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("L" if channels == 1 else "RGB")
        return np.asarray(picture.resize((width, height), Image.Resampling.BOX)).reshape(event)

    return np.stack([one(image) for image in x])


def regrey(x: np.ndarray, levels: int, binarize: str) -> np.ndarray:
    """Bytes 0 .. 255 as grey values 0 .. levels - 1."""
    if levels == 0:
        raise UserError("anomaly.against: images have grey values, but these data are continuous")
    if levels == 2:
        return binarized(x, 256, binarize if binarize == "static" else "threshold", "test")
    return np.round(x * ((levels - 1) / 255))


def _file(run: Evaluation, path: Path) -> np.ndarray:
    where, shape, levels = f"anomaly.against={str(path)!r}", run.split.x.shape[1:], run.source.levels
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays)
            if "x" not in names and len(names) != 1:
                raise unknown(f"{where}: the array", "x", names)
            x = arrays["x" if "x" in names else names[0]]
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where} cannot be read: {' '.join(str(error).split())}") from None
    if x.shape[1:] != shape or not len(x) or not np.isfinite(x).all():
        raise UserError(f"{where} must have finite examples of the shape {shape}; its array is {x.dtype} {x.shape}")
    if levels and not (np.array_equal(x, np.round(x)) and x.min() >= 0 and x.max() < levels):
        raise UserError(f"{where} must have the grey values 0 to {levels - 1} of the run's data; it has {x.min():g} to {x.max():g}")
    return x
