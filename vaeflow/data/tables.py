"""A user's own arrays in files: npz, npy, HDF5, Hugging Face datasets, CSV, Parquet (vaeflow/data/formats.py).

Each format gives arrays by name, in one of three layouts.
    own splits    `train`, and perhaps `val`, `test`; with them `train_label`, `train_context` and so on
    one array     `x`, or the one that data.name names; with it `label`, `context`, `x0`, `mask`
    named splits  data.train, and perhaps data.val, data.test, name an array or rows of one: `digits`, `digits[:90%]`, `digits[-500:]`;
                  with it `digits_label`, `digits_context` and so on (with `x`: `label`, `context`, ...)
  data.label names another label array (`y`: then `train_y`, ...). Examples [N, ...]: floats are continuous data; integers and booleans
  are grey values 0 .. data.levels - 1, and [N, H, W] of them become [N, H, W, 1]. data.levels=0: 256, or 2 when none is above 1.
  x0 [N, ...], the other half of pairs, is read like the examples. mask is boolean, in the shape of the examples: True where an entry was
  observed. Entries that were not are filled with any valid number.
npy: one array is `x`; a folder of .npy files is read like an npz.
hdf5: as npz; data sets in groups are named in full, such as data.name=group/x.
hf: the splits of the saved set; the examples are the column data.name, or without one the only column beside the label, or else all
  columns, which then hold one number each. Labels are the column data.label ("": `label`).
csv, parquet: continuous data [N, columns], numbers in every column but data.label's; one file, or a folder with train.csv and perhaps
  val.csv, test.csv.

A split that the data lack is taken from the training examples: data.val_fraction, data.test_fraction.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from vaeflow.data.formats import FORMATS, opened
from vaeflow.data.source import SPLITS, DataConfig, Piece, Source, Split, carve, disjoint, encode_labels, require, rows, source
from vaeflow.errors import UserError, unknown

MAX_LEVELS = 2**16  # float32 has 7 bits left for the noise that dequantises the largest value
_ROWS = re.compile(r"([^\[\]]+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")  # name, name[start:end], each end a row or a percentage


def load(config: DataConfig, seed: int) -> Source:
    """Of every kind in FORMATS; the module's docstring says which arrays are read."""
    del seed
    path, where = _existing(config, FORMATS[config.kind].what), f"data.path={config.path!r}"
    with opened(path, config) as stored:
        read = config._replace(**{key: DataConfig._field_defaults[key] for key in FORMATS[config.kind].ignored})
        found = _raw_splits(read, where, stored.names, stored.read)
    x0 = {f"{name} x0": raw.x0 for name, raw in found.items() if raw.x0 is not None}
    values, levels = _grey({name: raw.x for name, raw in found.items()} | x0, read.levels, where)
    splits = {name: raw._replace(x=values[name], x0=values.get(f"{name} x0"), mask=_mask(raw, values[name])) for name, raw in found.items()}
    return _assemble(splits, levels, config, where)


def _mask(raw: Split, x: np.ndarray) -> np.ndarray | None:
    """The mask of stored examples in the shape of x, which are these examples as they are read."""
    return raw.mask.reshape(x.shape) if raw.mask is not None and raw.mask.shape == raw.x.shape else raw.mask


def _raw_splits(config: DataConfig, where: str, names: list[str], read: Callable[[str], np.ndarray]) -> dict[str, Split]:
    """{split: its arrays as they are stored} of the arrays `names`."""

    @functools.cache  # a compressed array that holds several splits is read once
    def whole(name: str) -> np.ndarray:
        array = read(name)
        if not array.ndim:
            raise UserError(f"{where}: the array {name!r} is one value; it must be [N, ...]")
        return array

    if config.train or config.val or config.test:
        pieces = _named_splits(config, where, names, whole)
    else:
        pieces = {split: Piece(name, 0, len(whole(name))) for split, name in _arrays(config, where, names).items()}
    label = config.label or "label"
    found, labelled = {}, False
    for split, (name, start, end) in pieces.items():
        prefix = "" if name in ("x", config.name) else f"{name}_"
        leaves = {}
        for leaf, other in dict(label=prefix + label, context=prefix + "context", x0=prefix + "x0", mask=prefix + "mask").items():
            if other in names and other != name:
                if len(whole(other)) != len(whole(name)):
                    raise UserError(f"{where}: {name!r} has {len(whole(name))} examples but {len(whole(other))} of {other!r}")
                leaves[leaf] = whole(other)[start:end]
        found[split] = Split(whole(name)[start:end], **leaves)
        labelled |= prefix + label in names
    if config.label and not labelled:
        raise unknown(f"{where}: data.label", label, names)
    return found


def _arrays(config: DataConfig, where: str, names: list[str]) -> dict[str, str]:
    """{split: its array} where no split is named."""
    if config.name and config.name not in names:
        raise unknown(f"{where}: data.name", config.name, names)
    if config.name or ("train" not in names and "x" in names):
        return {"train": config.name or "x"}
    if "train" in names:
        return {split: split for split in SPLITS if split in names}
    ways = "name the training examples in data.name, or the splits in data.train, data.val and data.test"
    raise UserError(f"{where} has no array 'train' or 'x'; {ways}; known: {', '.join(sorted(names))}")


def _named_splits(config: DataConfig, where: str, names: list[str], read: Callable[[str], np.ndarray]) -> dict[str, Piece]:
    """{split: rows} of data.train, data.val and data.test."""
    if config.name:
        raise UserError(f"data.name={config.name!r} and data.train={config.train!r} both name the training examples; leave one empty")
    require(config, "train", "the training examples where data.val or data.test is named")
    pieces = {}
    for split in SPLITS:
        if expression := getattr(config, split):
            match = _ROWS.fullmatch(expression)
            if not match or match[1] not in names:
                known = f"{', '.join(sorted(names))}, and rows such as {min(names)}[:90%]"
                raise UserError(f"{where}: data.{split}={expression!r} is no array and no rows of one; known: {known}")
            size = len(read(match[1]))
            start, end = (_row(text, size) if text else default for text, default in ((match[2], 0), (match[3], size)))
            if not 0 <= start < end <= size:
                raise UserError(f"{where}: data.{split}={expression!r} asks for the rows {start} to {end} of {size}")
            pieces[split] = Piece(match[1], start, end)
    disjoint({split: [piece] for split, piece in pieces.items()}, config)
    return pieces


def _row(text: str, size: int) -> int:
    """`500`, `90%`, and from the end `-500`, `-10%`."""
    row = round(size * int(text[:-1]) / 100) if text.endswith("%") else int(text)
    return size + row if text.startswith("-") else row


def _grey(arrays: Mapping[str, np.ndarray], wanted: int, where: str) -> tuple[dict[str, np.ndarray], int]:
    """The arrays as unsigned integers with their number of levels (`wanted`, 0: inferred), or as float32 with 0."""
    kinds = {a.dtype.kind for a in arrays.values()}
    for name, a in arrays.items():
        if a.ndim < 2 or a.dtype.kind not in "fiub":
            raise UserError(f"{where}: the examples of {name!r} must be numbers [N, ...]; they are {a.dtype} of shape {a.shape}")
    if wanted and not 2 <= wanted <= MAX_LEVELS:
        raise UserError(f"data.levels={wanted} is invalid; it must be 0 (inferred) or in 2..{MAX_LEVELS}")
    if kinds == {"f"}:
        if wanted:
            raise UserError(f"{where}: data.levels={wanted} is for integers, but these data are floats; set it to 0, or save integers")
        return {name: np.asarray(a, np.float32) for name, a in arrays.items()}, 0
    if "f" in kinds:
        integers, floats = (", ".join(name for name, a in arrays.items() if (a.dtype.kind == "f") is want) for want in (False, True))
        raise UserError(f"{where}: {integers} has integers and {floats} has floats; use one type")
    low, high = min(int(a.min(initial=0)) for a in arrays.values()), max(int(a.max(initial=0)) for a in arrays.values())
    levels = wanted or (2 if high <= 1 else 256)
    if low < 0 or high >= levels:
        read = f"data.levels={wanted}: integers must be in 0..{wanted - 1}" if wanted else "integers are read as grey values in 0..255"
        fits = f"set data.levels={max(high + 1, 2)}, or " if low >= 0 else "add an offset and set data.levels, or "
        fits = fits if high < MAX_LEVELS else ""
        raise UserError(f"{where}: {read}, these are in {low}..{high}; {fits}save continuous data as floats")
    dtype = np.min_scalar_type(levels - 1)
    return {name: (a[..., None] if a.ndim == 3 else a).astype(dtype) for name, a in arrays.items()}, levels


def _existing(config: DataConfig, what: str) -> Path:
    path = Path(require(config, "path", what)).expanduser()
    if not path.exists():
        raise UserError(f"data.path={config.path!r} does not exist; data.kind={config.kind!r} needs {what}")
    return path


def _assemble(found: Mapping[str, Split], levels: int, config: DataConfig, where: str) -> Source:
    """The Source of {split: arrays with the labels as stored}, splits that the data lack carved out of train."""
    names = None
    labels: dict[str, np.ndarray] = {name: raw.label for name, raw in found.items() if raw.label is not None}
    if labels:
        numbers, names = encode_labels(list(labels.values()), f"{where}: {config.label or 'label'}")
        labels = dict(zip(labels, numbers, strict=True))
    context = {name: None if raw.context is None else np.asarray(raw.context, np.float32) for name, raw in found.items()}
    splits = {name: raw._replace(context=context[name], label=labels.get(name)) for name, raw in found.items()}
    train = splits["train"]
    if not len(train.x):
        raise UserError(f"{where} has no examples")
    parts = carve(len(train.x), config, splits)
    if len(parts) > 1:
        splits |= {name: rows(train, index) for name, index in parts.items()}
    return source(splits, levels, names)
