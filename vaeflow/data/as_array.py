"""Numpy arrays of what a notebook holds: numpy, jax, lists, DataFrames of pandas, polars and pyarrow, tensors of torch.

None of these packages is imported here: an object is read by `__array__`, a DataFrame by its columns, a tensor after `detach`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from vaeflow.errors import UserError

# What `__array__` of the packages raises for an object that cannot be converted.
_FAILURES = (TypeError, ValueError, RuntimeError, AttributeError, OverflowError, NotImplementedError)
_FOREIGN = {"c": "complex numbers; pass real and imaginary parts as columns", "m": "time differences; pass them as numbers"}
_FOREIGN |= {"M": "dates; pass them as numbers", "V": "records; pass one array of numbers"}


def as_array(x: Any, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """(array, names of its columns) of an array-like object, not copied where its package shares its memory.

    Args:
        x: numpy or jax array, list, DataFrame or Series, CPU tensor (its gradient is ignored), any object with `__array__`.
        name: the argument's name, for the errors.

    Returns:
        An array of floats, integers, booleans or text (kinds f, i, u, b, U) of any shape; floats of two bytes or less that numpy does not
        have (bfloat16) as float32. The names are () unless x is a DataFrame.

    Raises:
        UserError: x is no array, is ragged, or holds something else; the line names the column of a DataFrame.

    Example:
        as_array(pandas.DataFrame({"a": [1.0, 2.0], "b": [3, 4]}), "x")  # ([2, 2] float64, ("a", "b"))
    """
    if type(x).__name__ == "LazyFrame":
        raise UserError(f"{name} is a LazyFrame, which has no rows yet; pass {name}.collect()")
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise UserError(f"{name} is a masked array with {np.ma.count_masked(x)} missing values; fill them or leave out their rows")
    if isinstance(x, Tracer):
        raise UserError(f"{name} is an array that jax traces, without values; call this outside of jit, grad and vmap")
    for dense in ("toarray", "todense"):
        if callable(getattr(x, dense, None)) and not hasattr(x, "__array__"):
            raise UserError(f"{name} is sparse ({type(x).__name__}); pass {name}.{dense}()")
    if callable(getattr(x, "detach", None)):
        x = _detached(x, name)
    columns = _columns(x)
    if columns is None:
        return _array(x, name), ()
    return _table(x, [(str(key), column) for key, column in columns], name)


def finite(array: np.ndarray, columns: tuple[str, ...], name: str) -> np.ndarray:
    """Numbers as float32, not copied where they are.

    Args:
        array: numbers of any shape and type.
        columns: names of its columns, or ().
        name: the argument's name, for the errors.

    Returns:
        The array in float32.

    Raises:
        UserError: values are NaN or infinite, or too large for float32.
    """
    with np.errstate(over="ignore"):
        found = np.asarray(array, np.float32)
    bad = ~np.isfinite(found)
    if bad.any():
        what = "too large for float32" if np.isfinite(array).all() else "NaN or infinite"
        where = place(int(bad.argmax()), bad.shape, columns)
        raise UserError(f"{name} has {int(bad.sum()):,} values that are {what}; the first is in {where}")
    return found


def place(index: int, shape: tuple[int, ...], columns: tuple[str, ...]) -> str:
    """Where the flat `index` of an array [N, ...] is, in words: `row 3, column 'age'`."""
    row, *rest = (int(i) for i in np.unravel_index(index, shape))
    if not rest:
        return f"row {row}"
    return f"row {row}, {column_name(rest[0], columns)}" if len(rest) == 1 else f"row {row}, entry {tuple(rest)}"


def column_name(index: int, columns: tuple[str, ...]) -> str:
    """`column 'age'` of a DataFrame, else `column 3`."""
    return f"column {columns[index]!r}" if columns else f"column {index}"


def _detached(x: Any, name: str) -> Any:
    """A tensor without its gradient, in a type that numpy has."""
    device = str(getattr(x, "device", "cpu"))
    if not device.startswith("cpu"):
        raise UserError(f"{name} is on the device {device}; pass {name}.cpu()")
    x = x.detach()
    return x.float() if str(getattr(x, "dtype", "")) == "torch.bfloat16" else x


def _columns(x: Any) -> Iterable[tuple[Any, Any]] | None:
    """(name, column) of a DataFrame; None for other objects."""
    if isinstance(x, np.ndarray | jax.Array) or not hasattr(x, "columns"):
        return None
    if callable(getattr(x, "iter_columns", None)):  # polars
        return zip(x.columns, x.iter_columns(), strict=True)
    if hasattr(x, "column_names"):  # pyarrow
        return zip(x.column_names, x.columns, strict=True)
    return x.items() if hasattr(x, "iloc") else None  # pandas, where two columns may have one name


def _table(x: Any, columns: list[tuple[str, Any]], name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The columns of a DataFrame side by side."""
    names = tuple(key for key, _ in columns)
    if not columns:
        raise UserError(f"{name} is a DataFrame without columns")
    try:
        whole = np.asarray(x)
    except _FAILURES:
        whole = np.empty(0, object)
    if whole.dtype.kind in "fiub":  # of one type, not copied
        return whole, names
    arrays = [_array(column, f"{name}: the column {key!r}") for key, column in columns]
    for key, array in zip(names, arrays, strict=True):
        if array.ndim != 1:
            raise UserError(f"{name}: the column {key!r} has entries of shape {array.shape[1:]}; pass it alone, as an array")
        if array.dtype.kind == "U" and len(arrays) > 1:
            example = f" (row 0: {str(array[0])!r})" if len(array) else ""
            raise UserError(f"{name}: the column {key!r} holds text{example}; leave it out, or encode it as numbers")
    return np.column_stack(arrays), names


def _array(x: Any, name: str) -> np.ndarray:
    """One array of floats, integers, booleans or text."""
    try:
        array = np.asarray(x)
    except _FAILURES as error:
        if isinstance(x, list | tuple) and "inhomogeneous" in str(error):
            raise UserError(f"{name} is a list whose entries differ in shape; it must be one array [N, ...]") from None
        raise UserError(f"{name} ({type(x).__name__}) cannot be read as an array: {' '.join(str(error).split())}") from None
    kind = array.dtype.kind
    if kind == "O":
        return _text(array, x, name)
    if kind == "V" and array.dtype.names is None:  # types of jax that numpy does not have
        if jax.numpy.issubdtype(array.dtype, jax.numpy.floating):
            return array.astype(np.float32)
        if jax.numpy.issubdtype(array.dtype, jax.numpy.integer):
            return array.astype(np.int64)
    if kind in _FOREIGN:
        raise UserError(f"{name} holds {_FOREIGN[kind]}")
    if kind == "S":
        try:
            return np.char.decode(array, "utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{name} holds bytes that are no text in UTF-8") from None
    return array.astype(np.str_) if kind == "T" else array


def _text(array: np.ndarray, x: Any, name: str) -> np.ndarray:
    """An array of objects that are all text."""
    if not array.ndim:
        raise UserError(f"{name} is of type {type(x).__name__}; it must be one array [N, ...]")
    missing = [i for i, entry in enumerate(array.flat) if _is_missing(entry)]
    if missing:
        first = place(missing[0], array.shape, ())
        raise UserError(f"{name} has {len(missing)} missing values, the first in {first}; fill them or leave out their rows")
    for i, entry in enumerate(array.flat):
        if not isinstance(entry, str):
            where = f"{place(i, array.shape, ())}: {type(entry).__name__}"
            raise UserError(f"{name} holds Python objects ({where}); it must be an array of numbers; try .astype(float)")
    return array.astype(np.str_)


def _is_missing(entry: Any) -> bool:
    return type(entry).__name__ in ("NoneType", "NAType", "NaTType") or (isinstance(entry, float) and entry != entry)
