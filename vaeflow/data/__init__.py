"""Data sources: one a file, one line here. `load(config.data, seed)` gives a Source, `make_feed` its training batches.
`arrays(x, context)` gives a Source of arrays in memory.

To add one: write a file with `load(config: DataConfig, seed: int) -> Source`, which says in one UserError what it lacks, and add
its line. A source whose examples depend on the seed says `seeded=True`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vaeflow.data import densities, digits, images, kept, maf, omniglot, pair, tables, text, tfds
from vaeflow.data.augment import augment_batch, check_augment
from vaeflow.data.binarize import binarize_batch, binarized
from vaeflow.data.feed import Feed, indices, make_feed, select
from vaeflow.data.from_arrays import arrays
from vaeflow.data.source import DataConfig, Source, Split, differs, moments, named_split, of_classes, parse, summary
from vaeflow.errors import UserError, unknown_kind

__all__ = [
    "SOURCES",
    "DataConfig",
    "Feed",
    "Source",
    "Split",
    "arrays",
    "augment_batch",
    "binarize_batch",
    "configured",
    "differs",
    "indices",
    "load",
    "make_feed",
    "moments",
    "named_split",
    "select",
    "summary",
]

SOURCES: dict[str, Callable[[DataConfig, int], Source]] = {
    "digits": digits.load,
    "density": densities.load,
    "tfds": tfds.load,
    "npz": tables.load,
    "image_folder": images.load,
    "csv": tables.load,
    "maf": maf.load,
    "omniglot": omniglot.load,
    "text": text.load,
    "npy": tables.load,
    "hdf5": tables.load,
    "parquet": tables.load,
    "hf": tables.load,
    "arrays": kept.load,
    "pair": lambda config, seed: pair.load(config, seed, _loaded),
}


def load(data: Mapping[str, Any], seed: int) -> Source:
    """The data of the section `config.data`, checked. `seed` draws the training points of a density and nothing else."""
    config = parse(data)
    kind = config.kind
    for name in ("x", "x0"):
        if kind != "pair" and getattr(config, name):
            raise UserError(f"data.{name} is read by data.kind='pair' alone, and data.kind={kind!r}; remove the group")
    return configured(_loaded(config, seed, "data"), config)


def configured(source: Source, data: Mapping[str, Any] | DataConfig) -> Source:
    """A source as a run has it: black and white, with the contexts of the section `config.data`. UserError: it does not fit the section."""
    config = parse(data)
    kind = config.kind
    if config.pairing != "rows" and source.train.x0 is None:
        raise UserError(f"data.pairing={config.pairing!r} needs x0, and data.kind={kind!r} has none here; set it to 'rows'")
    check_augment(config.augment, source.train)
    source = _binarize(source, config)
    if config.context == "label":
        source = source.map(lambda name, split: split._replace(context=_one_hot(name, split, source, config)))
    elif config.context == "array" and source.train.context is None:
        raise UserError(f"data.context='array': data.kind={kind!r} has no array named context; known: label, none")
    if config.context == "none":
        source = source.map(lambda _, split: split._replace(context=None))
    if config.batch > len(source.train.x):
        raise UserError(f"data.batch={config.batch} is larger than the training split, which has {len(source.train.x)} examples")
    return source


def _loaded(config: DataConfig, seed: int, where: str) -> Source:
    """The source of a section, which `where` calls it, with its arrays checked."""
    if config.kind not in SOURCES:
        raise unknown_kind(f"{where}.kind", config.kind, SOURCES)
    source = SOURCES[config.kind](config, seed)
    if config.classes and config.kind != "pair":  # each half of a pair has its own
        source = of_classes(source, config.classes, f"{where}.classes")
    for name, split in source.splits().items():
        _check(name, split, source.train, config)
    return source


def _check(name: str, split: Split, train: Split, config: DataConfig) -> None:
    """A split's arrays belong together and hold numbers."""
    where = f"data.{'path' if config.path else 'kind'}={config.path or config.kind!r}: the split {name!r}"
    if not len(split.x):
        raise UserError(f"{where} is empty")
    if split.x.shape[1:] != train.x.shape[1:]:
        raise UserError(f"{where} has examples of shape {split.x.shape[1:]}, the split 'train' of {train.x.shape[1:]}")
    for key in ("context", "x0", "mask"):
        here, there = ("none" if a is None else f"the shape {a.shape[1:]}" for a in (getattr(split, key), getattr(train, key)))
        if here != there:
            raise UserError(f"{where} has another {key} than the split 'train': {here}, there {there}")
    for key, array in zip(split._fields, split, strict=True):
        if array is not None and len(array) != len(split.x):
            raise UserError(f"{where} has {len(split.x)} examples but {len(array)} of {key}")
        if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = np.argwhere(~np.isfinite(array))
            hint = "; fill missing entries with any number, the mask says which they are" if split.mask is not None else ""
            raise UserError(f"{where} has {len(bad)} values that are NaN or infinite in {key}; the first is in example {bad[0][0]}{hint}")
    if split.mask is not None and (split.mask.dtype != bool or split.mask.shape != split.x.shape):
        mask = f"{split.mask.dtype} of shape {split.mask.shape}"
        raise UserError(f"{where} has a mask that is {mask}; it must be bool of the examples' shape {split.x.shape}")


def _binarize(source: Source, config: DataConfig) -> Source:
    """Black and white where the config says so and the source has not done it itself."""
    if config.binarize == "none" or source.levels == 2:
        return source
    if source.levels == 0:
        raise UserError(f"data.binarize={config.binarize!r} needs grey values (integers), but these data are continuous; known here: none")
    if config.binarize == "dynamic":
        if source.train.x0 is not None:
            raise UserError(
                "data.binarize='dynamic' is invalid with x0, which has no draws of its own; known here: none, static, threshold"
            )
        return source
    levels, method = source.levels, config.binarize

    def change(name: str, split: Split) -> Split:
        # The draws of x0 are independent of those of x.
        x0 = None if split.x0 is None else binarized(split.x0, levels, method, f"{name} x0")
        return split._replace(x=binarized(split.x, levels, method, name), x0=x0)

    return source.map(change)._replace(levels=2)


def _one_hot(name: str, split: Split, source: Source, config: DataConfig) -> np.ndarray:
    """Labels as [N, classes] float32."""
    if split.label is None or source.label_names is None:
        raise UserError(f"data.context='label': data.kind={config.kind!r} has no labels in the split {name!r}; known: none")
    if split.label.min() < 0:
        raise UserError(f"data.context='label': the split {name!r} has examples without a label (label {split.label.min()})")
    return (split.label[:, None] == np.arange(len(source.label_names))).astype(np.float32)
