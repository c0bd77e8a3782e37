"""Contexts and class labels of arrays in memory: of training data, and of more examples for a trained model."""

from __future__ import annotations

from typing import Any

import numpy as np

from vaeflow.data.as_array import as_array, finite
from vaeflow.data.source import encode_labels
from vaeflow.errors import UserError

MAX_CLASSES = 1000  # of a context: more are numbers that were stored as integers


def conditions(context: Any, n: int, *, width: int, label_names: tuple[str, ...] = (), name: str = "context") -> np.ndarray:
    """The context of n more examples, [n, width] float32.

    Args:
        context: class labels [n], or numbers [n, width] (or [n], where width is 1).
        n: number of examples.
        width: C of the training data's context [N, C].
        label_names: the classes of class labels, in the order of the one-hot columns; (): the context is not a class.
        name: the argument's name, for the errors.

    Returns:
        [n, width] float32.

    Raises:
        UserError: another number of rows or columns, an unknown class.

    Example:
        conditions(["cat", "dog"], 2, width=2, label_names=("cat", "dog"))  # [[1, 0], [0, 1]]
    """
    array = read_context(context, n, name)
    if array.ndim == 1 and label_names:
        return one_hot(class_numbers(array, label_names, name), label_names)
    if array.dtype.kind == "U":
        raise UserError(f"{name} holds text, and the context of the training data is {width} numbers per example")
    array = np.asarray(array[:, None] if array.ndim == 1 else array, np.float32)
    if array.shape[1] != width:
        raise UserError(f"{name} has {array.shape[1]} numbers per example; the context of the training data has {width}")
    return array


def read_context(context: Any, n: int, name: str) -> np.ndarray:
    """The context of n examples as it is given.

    Args:
        context: what `vaeflow.data.as_array` reads.
        n: number of examples.
        name: the argument's name, for the errors.

    Returns:
        [n] class labels (integers, booleans or text), or [n, C] float32.

    Raises:
        UserError: another shape, another number of rows, NaN.
    """
    array, columns = as_array(context, name)
    text = array.dtype.kind == "U"
    if text and array.ndim == 2 and array.shape[1] == 1:  # a DataFrame of one column
        array = array[:, 0]
    if array.ndim not in (1, 2) or not array.size or (text and array.ndim == 2):
        what = "text" if text else str(array.dtype)
        raise UserError(f"{name} is {what} of shape {array.shape}; it must be [N] class labels, or numbers [N] or [N, C]")
    if len(array) != n:
        raise UserError(f"{name} has {len(array)} rows for {n} examples")
    if array.ndim == 1 and array.dtype.kind in "iubU":
        return array
    return finite(array[:, None] if array.ndim == 1 else array, columns, name)


def read_labels(labels: Any, n: int, name: str) -> np.ndarray:
    """Class labels [n], integers, booleans or text, as they are given. UserError: they are something else.

    Args:
        labels: what `vaeflow.data.as_array` reads.
        n: number of examples.
        name: the argument's name, for the errors.
    """
    array, _ = as_array(labels, name)
    if array.ndim != 1 or array.dtype.kind not in "iubU":
        what = "text" if array.dtype.kind == "U" else str(array.dtype)
        raise UserError(f"{name} is {what} of shape {array.shape}; it must be [N] class labels, integers or text")
    if len(array) != n:
        raise UserError(f"{name} has {len(array)} rows for {n} examples")
    return array


def context_classes(labels: np.ndarray, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """(class numbers [N] int32, names of the classes) of a context of class labels. UserError: there are more than MAX_CLASSES.

    Args:
        labels: [N] as `read_context` gives them.
        name: the argument's name, for the errors.
    """
    (found,), names = encode_labels([labels], name)
    if len(names) > MAX_CLASSES:
        cast = f"; pass {name}.astype(float) for numbers" if labels.dtype.kind in "iu" else ""
        raise UserError(f"{name} has {len(names):,} different class labels; at most {MAX_CLASSES:,} are read as classes{cast}")
    return found, names


def class_numbers(labels: np.ndarray, names: tuple[str, ...], name: str) -> np.ndarray:
    """The class numbers [N] int32 of labels whose classes are known. UserError: a label is none of them.

    Args:
        labels: [N] integers or text.
        names: of the classes 0, 1, ...
        name: the argument's name, for the errors.
    """
    (found,), own = encode_labels([labels], name)
    if new := [value for value in own if value not in names]:
        known = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        raise UserError(f"{name} has classes that the training data do not have: {', '.join(map(repr, new[:4]))}; known: {known}")
    return np.array([names.index(value) for value in own], np.int32)[found]


def one_hot(classes: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Class numbers [N] as [N, classes] float32."""
    return (classes[:, None] == np.arange(len(names))).astype(np.float32)
