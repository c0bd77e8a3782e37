"""GAS of the MAF paper: a pickled DataFrame, converted once to an .npz file that holds arrays alone.

    python -m experiments.prepare --gas=FOLDER/gas/ethylene_CO.pickle    # writes ethylene_CO.npz beside it

Unpickling calls what the file names, so a pickle can run any code. `convert` reads one with a stand-in for every global that a DataFrame
of numbers needs: a class that records its arguments and its state. Any other global is an error. No code of pandas runs, and
arrays are made from the recorded bytes. The state of a DataFrame has one of two layouts, [columns of a block, rows] each:

    pandas 0.14 to 1.2    BlockManager's state (axes, ..., {"0.14.1": {axes, blocks: [{values, mgr_locs}, ...]}})
    pandas 1.3 to 2.3     BlockManager(blocks, axes) with blocks _unpickle_block(values, mgr_locs, ndim)

data.kind=maf reads the converted file only.
"""

from __future__ import annotations

import pickle
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vaeflow.errors import UserError
from vaeflow.runs.files import write_npz

PICKLED = "gas/ethylene_CO.pickle"  # in the archive
CONVERTED = "gas/ethylene_CO.npz"
_DTYPE = re.compile(r"[fiu][1248]")


class _Record:
    """A pickled object as the file describes it: the arguments of its constructor and its state."""

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> _Record:
        self = object.__new__(cls)
        self.args, self.state = args, None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


# {global: the modules that have had it}. Python 2 and pandas 0.14 first.
_GLOBALS = {
    "DataFrame": ("pandas.core.frame",),
    "BlockManager": ("pandas.core.internals", "pandas.core.internals.managers"),
    "_unpickle_block": ("pandas._libs.internals",),
    "_new_Index": ("pandas.core.index", "pandas.indexes.base", "pandas.core.indexes.base"),
    "Index": ("pandas.core.index", "pandas.indexes.base", "pandas.core.indexes.base"),
    "Int64Index": ("pandas.core.index", "pandas.indexes.numeric", "pandas.core.indexes.numeric"),
    "RangeIndex": ("pandas.indexes.range", "pandas.core.indexes.range"),
    "_reconstruct": ("numpy.core.multiarray", "numpy._core.multiarray"),
    "_frombuffer": ("numpy.core.numeric", "numpy._core.numeric"),
    "ndarray": ("numpy",),
    "dtype": ("numpy",),
    "slice": ("__builtin__", "builtins"),
    "encode": ("_codecs",),  # bytes where Python 3 writes protocol 2
}
_RECORDS = {name: type(name, (_Record,), {}) for name in _GLOBALS}
_STAND_INS = {(module, name): _RECORDS[name] for name, modules in _GLOBALS.items() for module in modules}


class _Unpickler(pickle.Unpickler):
    """Builds lists, dicts, numbers, text and `_Record`s, nothing else."""

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="latin1")  # the bytes of a Python 2 array are text with the same codes

    def find_class(self, module_name: str, global_name: str) -> type[_Record]:
        """The stand-in for a global. UserError: a DataFrame of numbers does not need it."""
        if (module_name, global_name) not in _STAND_INS:
            raise UserError(f"it names {f'{module_name}.{global_name}'!r}, which a table of numbers does not need; nothing of it was run")
        return _STAND_INS[module_name, global_name]


def convert(path: Path) -> Path:
    """Write the table in the pickle `path` to ethylene_CO.npz in the same folder: `columns` [C] text, `data` [N, C] float64.

    Returns the file written. Raises UserError if `path` is anything other than a pickled DataFrame of numbers.
    """
    try:
        with path.open("rb") as file:
            columns, data = _table(_Unpickler(file).load())
    except OSError as error:
        raise UserError(f"--gas={str(path)!r} cannot be read: {error.strerror}") from None
    except UserError as error:
        raise UserError(f"--gas={str(path)!r} is not converted: {error}") from None
    except Exception as error:  # a damaged pickle raises any of a dozen kinds
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"--gas={str(path)!r} is not a pickled DataFrame of numbers: {why}") from error
    written = path.with_name(Path(CONVERTED).name)
    write_npz(written, {"columns": np.asarray(columns, np.str_), "data": data})
    return written


def read_converted(path: Path) -> tuple[list[str], np.ndarray]:
    """(column names [C], data [N, C] float64) of a converted file."""
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise UserError(f"{str(path)!r} holds one bare array; write it with experiments.prepare --gas")
        with found as file:
            columns, data = file["columns"], file["data"]
    except UserError:
        raise
    except (OSError, ValueError, LookupError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{str(path)!r} cannot be read as a converted table: {' '.join(str(error).split())}") from None
    if data.dtype != np.float64 or columns.dtype.kind != "U" or columns.shape != data.shape[1:]:
        arrays = f"data {data.dtype} {data.shape}, columns {columns.dtype} {columns.shape}"
        raise UserError(f"{str(path)!r} must hold data [N, C] of float64 and columns [C] of text; it holds {arrays}")
    return [str(name) for name in columns], data


def _is(value: Any, name: str) -> bool:
    return type(value) is _RECORDS[name]


def _known(value: Any, name: str) -> _Record:
    if not _is(value, name):
        raise UserError(f"it has a {type(value).__name__} in place of a {name}")
    return value


def _table(frame: Any) -> tuple[list[str], np.ndarray]:
    """(column names, values [rows, columns] float64) of a recorded DataFrame."""
    state = _known(frame, "DataFrame").state
    manager = _known(state["_mgr" if "_mgr" in state else "_data"], "BlockManager")
    if manager.args:
        blocks, axes = manager.args
        pieces = [_known(block, "_unpickle_block").args[:2] for block in blocks]
    else:
        stored = manager.state[3]["0.14.1"]
        axes, pieces = stored["axes"], [(block["values"], block["mgr_locs"]) for block in stored["blocks"]]
    columns = _names(axes[0])
    found: dict[int, np.ndarray] = {}
    for values, places in pieces:
        found |= zip(_places(places, len(columns)), _numbers(values), strict=True)
    if set(found) != set(range(len(columns))) or {row.ndim for row in found.values()} != {1}:
        raise UserError(f"its blocks do not hold its {len(columns)} columns")
    return columns, np.stack([np.asarray(found[i], np.float64) for i in range(len(columns))], axis=1)


def _names(index: Any) -> list[str]:
    """The column names of a recorded Index."""
    array = _known(_known(index, "_new_Index").args[1]["data"], "_reconstruct")
    names = array.state[4]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError("its columns are not named by text")
    return names


def _places(places: Any, columns: int) -> list[int]:
    """The columns of a block: a recorded slice, or an array of their numbers."""
    return list(range(columns)[slice(*places.args)]) if _is(places, "slice") else _numbers(places).tolist()


def _numbers(array: Any) -> np.ndarray:
    """A recorded array of numbers. Protocol 5 stores _frombuffer(bytes, dtype, shape, order), the others a state."""
    if _is(array, "_frombuffer"):
        raw, kind, shape, order = array.args
    else:
        _, shape, kind, fortran, raw = _known(array, "_reconstruct").state
        order = "F" if fortran else "C"
    dtype, endian = _known(kind, "dtype").args[0], kind.state[1]
    if not _DTYPE.fullmatch(dtype):
        raise UserError(f"it has columns that are not numbers (dtype {dtype!r})")
    if _is(raw, "encode"):
        raw = raw.args[0]
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    return np.frombuffer(raw, np.dtype(endian + dtype)).reshape(shape, order=order)
