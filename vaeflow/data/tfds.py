"""Image sets of TensorFlow Datasets, read from prepared array_record files without TensorFlow and without the network.

A stored split is decoded once into a memory-mapped cache (uint8 [N, H, W, C]); `train[:50000]` is then a view of the file of
`train`. TFDS stores examples in a fixed shuffled order of its own, so that is not the first 50000 of the original files.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaeflow.data.binarize import ROWS, binarized
from vaeflow.data.cache import Cache, open_cache
from vaeflow.data.prepared import check_classes, find
from vaeflow.data.source import SPLITS, DataConfig, Piece, Source, Split, disjoint, require, source
from vaeflow.errors import UserError, unknown


class StoredSplit(NamedTuple):
    """A whole stored split: x [N, H, W, C] uint8, label [N] int32 or None, levels 2 or 256."""

    x: np.ndarray
    label: np.ndarray | None
    levels: int


def load(config: DataConfig, seed: int) -> Source:
    """data.kind=tfds: the set `name` under `dir`, with splits given by TFDS expressions."""
    del seed
    folder = find(require(config, "name", "the dataset's name"), require(config, "dir", "the data_dir that experiments.prepare filled"))
    with _quiet():
        builder = _builder(folder)
        sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
        require(config, "train", f"the training split; known: {_describe(sizes)}")
        wanted = {split: _pieces(split, getattr(config, split), builder, sizes) for split in SPLITS if getattr(config, split)}
        disjoint(wanted, config)
        label = _check_features(config, builder)
        cache = open_cache(config.cache_dir, "tfds", f"{builder.info.full_name.replace('/', '-')}-{_fingerprint(folder)}")
        used = sorted({piece.name for pieces in wanted.values() for piece in pieces})
        stored = {name: _stored(builder, name, label, config.binarize, cache) for name in used}
    splits = {split: _join(pieces, stored, config.binarize, cache) for split, pieces in wanted.items()}
    names = tuple(builder.info.features[label].names) if label else None
    return source(splits, max(s.levels for s in stored.values()), names)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice to install OpenCV: decoding happens once."""

    def keep(record: logging.LogRecord) -> bool:
        return "OpenCV is not installed" not in record.getMessage()

    logger = logging.getLogger("absl")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _builder(folder: Path) -> Any:
    check_classes(folder)
    import tensorflow_datasets as tfds  # half a second, and only this kind of data needs it

    return tfds.builder_from_directory(folder)


def _describe(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({n})" for name, n in sizes.items()) + ", and slices such as train[:90%]"


def _pieces(split: str, expression: str, builder: Any, sizes: Mapping[str, int]) -> list[Piece]:
    """What the expression data.<split> names."""
    import tensorflow_datasets as tfds

    try:
        absolute = tfds.core.ReadInstruction.from_spec(expression).to_absolute(builder.info.splits)
    except (ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(" See format")[0].rstrip(".")
        name = builder.info.full_name
        raise UserError(f"data.{split}={expression!r} is no split of {name}: {reason}; known: {_describe(sizes)}") from None
    pieces = [Piece(a.splitname, a.from_ or 0, sizes[a.splitname] if a.to is None else a.to) for a in absolute]
    for name, start, end in pieces:
        if not 0 <= start < end <= sizes[name]:
            raise UserError(f"data.{split}={expression!r} asks for rows {start} to {end} of {name}; known: {_describe(sizes)}")
    return pieces


def _check_features(config: DataConfig, builder: Any) -> str:
    """The label's feature, or ""; an error for a set without 8-bit images."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    known = ", ".join(f"{key} ({type(f).__name__})" for key, f in features.items())
    image = dict(features.items()).get("image")
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise UserError(f"data.name={config.name!r} has no 8-bit feature `image`; its features: {known}")
    label = config.label or "label"
    if label in features and isinstance(features[label], tfds.features.ClassLabel):
        return label
    if config.label:
        raise unknown("data.label", label, (key for key, f in features.items() if isinstance(f, tfds.features.ClassLabel)))
    return ""


def _fingerprint(folder: Path) -> str:
    """Changes when the set is prepared again with other contents."""
    records = sorted(f"{p.name} {p.stat().st_size}" for p in folder.glob("*.array_record*"))
    return hashlib.sha256("\n".join([(folder / "dataset_info.json").read_text(), *records]).encode()).hexdigest()[:16]


def _stored(builder: Any, name: str, label: str, binarize: str, cache: Cache) -> StoredSplit:
    """The stored split `name`, decoded unless the cache has it; black and white where `binarize` fixes that."""
    info = builder.info.splits[name]
    missing = [path for path in info.filepaths if not Path(path).exists()]
    if missing:
        raise UserError(f"the file {str(missing[0])!r} of {builder.info.full_name} is missing; prepare the set again")
    n, records = info.num_examples, builder.as_data_source(split=name)
    shape = builder.info.features["image"].shape
    if None in shape:
        shape = records[0]["image"].shape
    labels: list[np.ndarray] = []

    def images() -> Iterator[np.ndarray]:
        labels.clear()
        for start in range(0, n, ROWS):
            part = records.__getitems__(list(range(start, min(start + ROWS, n))))
            other = next((r["image"].shape for r in part if r["image"].shape != tuple(shape)), None)
            if other:
                raise UserError(f"data.name={builder.info.full_name!r}: its images differ in size, {tuple(shape)} and {other}")
            labels.append(np.array([r[label] for r in part] if label else (), np.int32))
            yield np.stack([r["image"] for r in part])

    def seen_labels() -> list[np.ndarray]:
        if not labels:  # the images came from the cache, their labels did not
            for _ in images():
                pass
        return labels

    x = cache.array(name, (n, *shape), np.uint8, images)
    label_array = cache.array(f"{name}-{label}", (n,), np.int32, seen_labels) if label else None
    top = cache.array(f"{name}-max", (1,), np.uint8, lambda: [max(x[i : i + ROWS].max() for i in range(0, n, ROWS)).reshape(1)])
    if int(top[0]) <= 1 or binarize not in ("threshold", "static"):
        return StoredSplit(x, label_array, 2 if int(top[0]) <= 1 else 256)

    def fixed() -> Iterator[np.ndarray]:
        for start in range(0, n, ROWS):
            yield binarized(x[start : start + ROWS], 256, binarize, name, start)

    return StoredSplit(cache.array(f"{name}-{binarize}", x.shape, np.uint8, fixed), label_array, 2)


def _join(pieces: Sequence[Piece], stored: Mapping[str, StoredSplit], binarize: str, cache: Cache) -> Split:
    """A view of one stored split, or several pieces one after another in a cache file of their own."""
    xs = [stored[p.name].x[p.start : p.end] for p in pieces]
    labels = [a[p.start : p.end] for p in pieces if (a := stored[p.name].label) is not None]
    if len(pieces) == 1:
        return Split(xs[0], label=labels[0] if labels else None)
    kind = binarize if binarize in ("threshold", "static") else "grey"
    name = "+".join(f"{p.name}-{p.start}-{p.end}" for p in pieces) + f"-{kind}"
    shape = (sum(map(len, xs)), *xs[0].shape[1:])
    x = cache.array(name, shape, np.uint8, lambda: (part[i : i + ROWS] for part in xs for i in range(0, len(part), ROWS)))
    return Split(x, label=np.concatenate(labels) if labels else None)
