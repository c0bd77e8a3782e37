"""A user's own arrays: npz and csv files.

npz: numpy arrays by name, in one of two layouts.
    own splits    `train`, and perhaps `val`, `test`; with them `train_label`, `train_context` and so on
    one array     `x`, or the one that data.name names; with it `label`, `context`
  data.label names another label array (`y`: then `train_y`, ...). Examples [N, ...]: floats are continuous data; bytes, integers
  in 0..255 and booleans are grey values (levels 256, or 2 when none is above 1), and [N, H, W] of them become [N, H, W, 1].
csv: a header line, numbers in every column but data.label's; one file, or a folder with train.csv and perhaps val.csv, test.csv.

A split that the data lack is taken from the training examples: data.val_fraction, data.test_fraction.
"""

from __future__ import annotations

import csv
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import numpy as np

from vaeflow.data.source import SPLITS, DataConfig, Source, Split, carve, encode_labels, require, rows, source
from vaeflow.errors import UserError, unknown

Raw = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]  # x, label as given, context


def load_npz(config: DataConfig, seed: int) -> Source:
    """data.kind=npz; the module's docstring says which arrays are read."""
    del seed
    path = _existing(config, "an .npz file")
    where = f"data.path={config.path!r}"
    try:
        opened = np.load(path, allow_pickle=False)
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise UserError(f"{where} holds one bare array; save it with numpy.savez(path, x=array)")
        with opened as file:
            found = _npz_arrays(config, where, file.files, lambda name: file[name])
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where} cannot be read as npz: {' '.join(str(error).split())}") from None
    values, levels = _grey({name: raw[0] for name, raw in found.items()}, where)
    return _assemble({name: (values[name], *raw[1:]) for name, raw in found.items()}, levels, config, where)


def _npz_arrays(config: DataConfig, where: str, names: list[str], read: Callable[[str], np.ndarray]) -> dict[str, Raw]:
    """{split: (x, label, context)} of the arrays `names`."""
    if config.name and config.name not in names:
        raise unknown(f"{where}: data.name", config.name, names)
    if config.name or ("train" not in names and "x" in names):
        prefixes = {"train": (config.name or "x", "")}
    elif "train" in names:
        prefixes = {split: (split, f"{split}_") for split in SPLITS if split in names}
    else:
        raise UserError(f"{where} has no array 'train' or 'x'; name the training examples in data.name; known: {', '.join(sorted(names))}")
    label = config.label or "label"
    if config.label and not any(prefix + label in names for _, prefix in prefixes.values()):
        raise unknown(f"{where}: data.label", label, names)

    def optional(name: str) -> np.ndarray | None:
        return read(name) if name in names else None

    return {split: (read(x), optional(prefix + label), optional(prefix + "context")) for split, (x, prefix) in prefixes.items()}


def _grey(arrays: Mapping[str, np.ndarray], where: str) -> tuple[dict[str, np.ndarray], int]:
    """The arrays as uint8 with their number of levels, or as float32 with 0."""
    kinds = {a.dtype.kind for a in arrays.values()}
    for name, a in arrays.items():
        if a.ndim < 2 or a.dtype.kind not in "fiub":
            raise UserError(f"{where}: the examples of {name!r} must be numbers [N, ...]; they are {a.dtype} of shape {a.shape}")
    if kinds == {"f"}:
        return {name: np.asarray(a, np.float32) for name, a in arrays.items()}, 0
    if "f" in kinds:
        raise UserError(f"{where}: some splits are integers and some are floats; use one type")
    low, high = min(int(a.min(initial=0)) for a in arrays.values()), max(int(a.max(initial=0)) for a in arrays.values())
    if low < 0 or high > 255:
        raise UserError(f"{where}: integers are read as grey values in 0..255, these are in {low}..{high}; save continuous data as floats")
    as_bytes = {name: a.astype(np.uint8) for name, a in arrays.items()}
    return {name: a[..., None] if a.ndim == 3 else a for name, a in as_bytes.items()}, 2 if high <= 1 else 256


def load_csv(config: DataConfig, seed: int) -> Source:
    """data.kind=csv: x [N, columns] float32."""
    del seed
    path = _existing(config, "a .csv file, or a folder with train.csv")
    files = {"train": path}
    if path.is_dir():
        files = {split: path / f"{split}.csv" for split in SPLITS if (path / f"{split}.csv").is_file()}
        if "train" not in files:
            known = ", ".join(sorted(p.name for p in path.iterdir())) or "nothing"
            raise UserError(f"data.path={config.path!r} has no train.csv; it has {known}")
    headers, found = {}, {}
    for split, file in files.items():
        headers[split], x, label = _read_csv(file, config.label)
        if headers[split] != headers["train"]:
            raise UserError(f"{str(file)!r} has the columns {', '.join(headers[split])}, train.csv has {', '.join(headers['train'])}")
        found[split] = (x, label, None)
    return _assemble(found, 0, config, f"data.path={config.path!r}")


def _read_csv(path: Path, label: str) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    """(column names, numbers [N, D] float32, labels [N] as text or None)."""

    def columns(use: list[int], dtype: type) -> np.ndarray:
        with path.open(newline="", encoding="utf-8-sig") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of no rows, which is our error below
            next(csv.reader(file))
            return np.loadtxt(file, dtype, delimiter=",", quotechar='"', comments=None, usecols=use, ndmin=2)

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = [name.strip() for name in next(csv.reader(file), [])]
        if not header or all(_is_number(name) for name in header):
            raise UserError(f"{str(path)!r}: the first line must name the columns; it is {','.join(header)!r}")
        if label and label not in header:
            raise unknown(f"{str(path)!r}: data.label", label, header)
        use = [i for i, name in enumerate(header) if name != label]
        if not use:
            raise UserError(f"{str(path)!r} has no column beside the label {label!r}")
        x = columns(use, np.float64).astype(np.float32)
        labels = columns([header.index(label)], np.str_)[:, 0] if label else None
    except UserError:
        raise
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{str(path)!r} cannot be read as csv: {error}") from None
    except ValueError as error:
        _explain(path, header, label, error)
    if not len(x):
        raise UserError(f"{str(path)!r} has a header but no rows")
    return header, x, labels


def _explain(path: Path, header: list[str], label: str, error: ValueError) -> NoReturn:
    """The error for the first cell that is no number."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        next(reader)
        for row in filter(None, reader):
            if len(row) != len(header):
                raise UserError(f"{str(path)!r}, line {reader.line_num}: {len(row)} cells where the header has {len(header)}") from None
            for name, cell in zip(header, row, strict=True):
                if name != label and not _is_number(cell):
                    hint = "" if label else "; a column of labels is named in data.label"
                    raise UserError(f"{str(path)!r}, line {reader.line_num}: column {name!r} is not a number: {cell!r}{hint}") from None
    raise UserError(f"{str(path)!r} cannot be read as csv: {error}") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _existing(config: DataConfig, what: str) -> Path:
    path = Path(require(config, "path", what)).expanduser()
    if not path.exists():
        raise UserError(f"data.path={config.path!r} does not exist; data.kind={config.kind!r} needs {what}")
    return path


def _assemble(found: Mapping[str, Raw], levels: int, config: DataConfig, where: str) -> Source:
    """The Source of {split: arrays}, splits that the data lack carved out of train."""
    for name, (x, *others) in found.items():
        for key, array in zip(("label", "context"), others, strict=True):
            if array is not None and len(array) != len(x):
                raise UserError(f"{where}: the split {name!r} has {len(x)} examples but {len(array)} of {key}")
    names = None
    labels: dict[str, np.ndarray] = {name: raw[1] for name, raw in found.items() if raw[1] is not None}
    if labels:
        numbers, names = encode_labels(list(labels.values()), f"{where}: {config.label or 'label'}")
        labels = dict(zip(labels, numbers, strict=True))
    context = {name: None if raw[2] is None else np.asarray(raw[2], np.float32) for name, raw in found.items()}
    splits = {name: Split(raw[0], context[name], labels.get(name)) for name, raw in found.items()}
    x, own_context, label = splits["train"]
    if not len(x):
        raise UserError(f"{where} has no examples")
    parts = carve(len(x), config, splits)
    if len(parts) > 1:
        splits |= {name: rows(x, label, own_context, index) for name, index in parts.items()}
    return source(splits, levels, names)
