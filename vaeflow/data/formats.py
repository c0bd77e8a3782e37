"""File formats as named arrays: each is one function that opens a path and gives its arrays by name, to be read when they are asked for.

    kind      package           path
    npz       numpy             a file; its arrays by their names
    npy       numpy             a file: the array `x`; or a folder of them: by the files' names
    hdf5      h5py              a file; its data sets by their whole names, such as `group/x`
    hf        datasets          the folder that `save_to_disk` of a Dataset or a DatasetDict wrote: `train`, `val`, ...
    csv       numpy             a file with any of the usual separators (vaeflow/data/delimited.py): `train`; or a folder with train.csv
                                and perhaps val.csv, test.csv
    parquet   pandas, pyarrow   the same with Parquet files

Nothing is unpickled. To add a format: write such a function and add its line to FORMATS and to SOURCES.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaeflow.data.as_array import as_array, finite
from vaeflow.data.delimited import read_csv
from vaeflow.data.packages import package
from vaeflow.data.source import SPLITS, DataConfig
from vaeflow.errors import UserError, unknown


class Stored(NamedTuple):
    """Arrays in files. names: of all. read: one of them."""

    names: list[str]
    read: Callable[[str], np.ndarray]


class Format(NamedTuple):
    """what      the path, in words
    open      (path, config) -> the arrays, as a context: files are closed at its end
    ignored   keys of the section `data` that the format has no use for
    """

    what: str
    open: Callable[[Path, DataConfig], contextlib.AbstractContextManager[Stored]]
    ignored: tuple[str, ...] = ()


@contextlib.contextmanager
def _open_npz(path: Path, config: DataConfig) -> Iterator[Stored]:
    opened = np.load(path, allow_pickle=False)
    if not isinstance(opened, np.lib.npyio.NpzFile):
        raise UserError(f"data.path={config.path!r} holds one bare array; set data.kind='npy', or save it with numpy.savez(path, x=array)")
    with opened as file:
        yield Stored(file.files, lambda name: file[name])


@contextlib.contextmanager
def _open_npy(path: Path, config: DataConfig) -> Iterator[Stored]:
    files = {"x": path}
    if path.is_dir():
        files = {file.stem: file for file in sorted(path.glob("*.npy"))}
        if not files:
            raise UserError(f"data.path={config.path!r} has no .npy files")

    def read(name: str) -> np.ndarray:
        try:
            array = np.load(files[name], allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{str(files[name])!r} cannot be read as npy: {' '.join(str(error).split())}") from None
        if not isinstance(array, np.ndarray):
            raise UserError(f"{str(files[name])!r} holds several arrays; set data.kind='npz'")
        return array

    yield Stored(list(files), read)


@contextlib.contextmanager
def _open_hdf5(path: Path, config: DataConfig) -> Iterator[Stored]:
    h5py = package("h5py", "data.kind='hdf5'", "hdf5")
    with h5py.File(path, "r") as file:
        found: dict[str, Any] = {}

        def visit(name: str, item: Any) -> None:  # a value would end the visit
            if isinstance(item, h5py.Dataset):
                found[name] = item

        file.visititems(visit)  # does not follow links to other files

        def read(name: str) -> np.ndarray:
            item = found[name]
            if h5py.check_string_dtype(item.dtype):
                return np.asarray(item.asstr()[()], np.str_)
            if item.dtype.kind not in "fiub" or item.shape is None:
                raise UserError(
                    f"data.path={config.path!r}: the array {name!r} is {item.dtype} of shape {item.shape}; it must hold numbers"
                )
            return np.asarray(item[()])

        yield Stored(list(found), read)


@contextlib.contextmanager
def _open_hf(path: Path, config: DataConfig) -> Iterator[Stored]:
    datasets, where = package("datasets", "data.kind='hf'", "hf"), f"data.path={config.path!r}"
    loaded = datasets.load_from_disk(str(path))
    splits = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
    if "val" not in splits and "validation" in splits:
        splits["val"] = splits.pop("validation")
    label, found = config.label or "label", {}
    for split, rows in splits.items():
        for key, wanted in (("name", config.name), ("label", config.label)):
            if wanted and wanted not in rows.column_names:
                raise unknown(f"{where}: data.{key}", wanted, rows.column_names)
        use = [config.name] if config.name else [name for name in rows.column_names if name != label]
        found[split] = lambda rows=rows, use=use: _hf_examples(rows, use, datasets, where)
        if label in rows.column_names and _is_labelled(rows, label):
            found[f"{split}_{label}"] = lambda rows=rows: _hf_labels(rows, label, datasets)
    yield Stored(list(found), lambda name: found[name]())


def _hf_column(rows: Any, name: str) -> np.ndarray:
    return np.asarray(rows.select_columns([name]).with_format("numpy")[:][name])


def _hf_examples(rows: Any, use: list[str], datasets: Any, where: str) -> np.ndarray:
    """The examples of a split: one column, or a table of columns that hold one number each."""
    table = [isinstance(rows.features[name], datasets.Value) for name in use]
    if len(use) != 1 and not all(table):
        raise UserError(f"{where} has several columns; name that of the examples in data.name; known: {', '.join(rows.column_names)}")
    if all(table):
        array, columns = as_array(rows.select_columns(use).to_pandas(), where)
        if array.dtype.kind == "U":
            raise UserError(
                f"{where}: the column {use[0]!r} holds text, such as {str(array.flat[0])!r}; known: {', '.join(rows.column_names)}"
            )
        return finite(array, columns, where)
    array = _hf_column(rows, use[0])
    if array.dtype.kind == "O":
        raise UserError(f"{where}: the entries of the column {use[0]!r} differ in shape, or are no numbers")
    return array


def _is_labelled(rows: Any, label: str) -> bool:
    """False for a split whose labels are withheld: all are -1."""
    numbers = _hf_column(rows, label)
    return numbers.dtype.kind != "i" or not len(numbers) or bool((numbers != -1).any())


def _hf_labels(rows: Any, label: str, datasets: Any) -> np.ndarray:
    """Labels by their classes' names, where the set has these."""
    numbers, feature = _hf_column(rows, label), rows.features[label]
    if not isinstance(feature, datasets.ClassLabel) or not feature.names:
        return numbers
    if numbers.dtype.kind != "i" or numbers.min(initial=0) < 0:
        raise UserError(f"data.label={label!r}: {int((numbers < 0).sum())} examples have no label")
    return np.asarray(feature.names)[numbers]


def _read_parquet(path: Path, label: str) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    """(names of all columns, numbers [N, D] float32, labels [N] or None), as of a CSV file."""
    pandas = package("pandas", "data.kind='parquet'", "tables")
    package("pyarrow", "data.kind='parquet'", "tables")
    frame = pandas.read_parquet(path, engine="pyarrow")
    columns, where = [str(name) for name in frame.columns], repr(str(path))
    if label and label not in columns:
        raise unknown(f"{where}: data.label", label, columns)
    labels = as_array(frame.pop(label), f"{where}: the column {label!r}")[0] if label else None
    if not len(frame.columns):
        raise UserError(f"{where} has no column beside the label {label!r}")
    if not len(frame):
        raise UserError(f"{where} has no rows")
    x, names = as_array(frame, where)
    if x.dtype.kind == "U":
        raise UserError(f"{where}: the column {names[0]!r} holds text; a column of labels is named in data.label")
    return columns, finite(x, names, where), labels


def _tables(suffix: str, read: Callable[[Path, str], tuple[list[str], np.ndarray, np.ndarray | None]]) -> Any:
    """Opens one table, or a folder with one for every split."""

    @contextlib.contextmanager
    def opened(path: Path, config: DataConfig) -> Iterator[Stored]:
        files = {"train": path}
        if path.is_dir():
            files = {split: path / f"{split}{suffix}" for split in SPLITS if (path / f"{split}{suffix}").is_file()}
            if "train" not in files:
                known = ", ".join(sorted(p.name for p in path.iterdir())) or "nothing"
                raise UserError(f"data.path={config.path!r} has no train{suffix}; it has {known}")
        headers, arrays = {}, {}
        for split, file in files.items():
            headers[split], arrays[split], labels = read(file, config.label)
            if headers[split] != headers["train"]:
                columns, wanted = ", ".join(headers[split]), ", ".join(headers["train"])
                raise UserError(f"{str(file)!r} has the columns {columns}, train{suffix} has {wanted}")
            if labels is not None:
                arrays[f"{split}_{config.label}"] = labels
        yield Stored(list(arrays), lambda name: arrays[name])

    return opened


_TABLE = ("name", "train", "val", "test", "levels")
FORMATS: dict[str, Format] = {
    "npz": Format("an .npz file", _open_npz),
    "npy": Format("an .npy file, or a folder of them", _open_npy),
    "hdf5": Format("an HDF5 file", _open_hdf5),
    "hf": Format("the folder that datasets.save_to_disk wrote", _open_hf, ("name",)),
    "csv": Format("a .csv file, or a folder with train.csv", _tables(".csv", read_csv), _TABLE),
    "parquet": Format("a .parquet file, or a folder with train.parquet", _tables(".parquet", _read_parquet), _TABLE),
}


@contextlib.contextmanager
def opened(path: Path, config: DataConfig) -> Iterator[Stored]:
    """The arrays at `path`, in the format data.kind. UserError: they cannot be read as such.

    Args:
        path: that of the section, which exists.
        config: the section `data`.
    """
    try:
        with FORMATS[config.kind].open(path, config) as stored:
            yield stored
    except UserError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(f"data.path={config.path!r} cannot be read as {config.kind}: {' '.join(str(error).split())}") from None
