"""A Source of arrays in memory, by the rules of data.kind=npz: what `vaeflow.fit` trains on.

    type of x                  read as
    float32                    continuous data, never dequantised
    float64, float16, ...      the same, cast to float32; float64 with one message on stderr
    bool                       2 grey values
    uint8                      256 grey values, or `levels`
    other integers             `levels` grey values 0 .. levels - 1; without `levels` an error, as they may be numbers

Examples are rows: [N] is read as [N, 1], and integers [N, H, W] as [N, H, W, 1]. The caller's arrays are never changed, and float32 and
uint8 arrays are not copied unless rows are taken out for validation.
"""

from __future__ import annotations

import numbers
import sys
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from vaeflow.data.as_array import as_array, column_name, finite
from vaeflow.data.contexts import class_numbers, conditions, context_classes, one_hot, read_context, read_labels
from vaeflow.data.source import Source, Split, cut, encode_labels, rows, source
from vaeflow.data.tables import MAX_LEVELS
from vaeflow.errors import UserError, unknown


def arrays(
    x: Any,
    context: Any = None,
    *,
    label: Any = None,
    x0: Any = None,
    mask: Any = None,
    val: Any = 0.1,
    levels: int | None = None,
    x_name: str = "x",
    constant: Literal["refused", "kept"] = "refused",
) -> Source:
    """The Source of arrays: a training split and, unless val is None, a validation split. There is no test split.

    Args:
        x: [N, *event] or [N], N >= 2: anything that `as_array` reads; the module's docstring has its types.
        context: what the model is conditioned on. Integers, booleans or text [N] are class labels: the context is then one-hot,
            [N, classes], in the order of label_names, and the source has these labels. Floats [N] or numbers [N, C] are float32.
        label: class labels [N], integers or text, of a model that learns them; None: those of the context.
        x0: [N, *event0], the other half of pairs, of a model that maps x0 to x; of the type of x.
        mask: bool in the shape of x, True where an entry was observed, of a model that reads it; the others may be NaN and become 0.
        val: validation. A fraction of the rows in [0, 1), chosen by the fixed permutation of data.val_fraction; or x_val, or
            (x_val, context_val), or (x_val, context_val, label_val), or a mapping with the keys x, context, label, x0, mask; or None: no
            validation split.
        levels: number of grey values of integers, 2 .. 65536.
        x_name: the name of x in messages.
        constant: columns of a table [N, D] of floats that have one value in all training rows. refused: an error, as a density is infinite
            there; kept: a message on stderr.

    Returns:
        The Source that data.kind=npz gives for the same arrays with val_fraction=val and test_fraction=0.

    Raises:
        UserError: one line that names the argument and what to do.

    Example:
        source = arrays(x, context=y, val=0.2)  # y [N] class labels
    """
    array, columns = as_array(x, x_name)
    array, seen = _seen(array, mask, x_name, "mask")
    levels = _levels_of(array, columns, levels, x_name)
    if not levels and array.dtype.itemsize > 4:
        print(f"{x_name} is {array.dtype} and is cast to float32", file=sys.stderr)
    array = _values(array, columns, levels, x_name)
    n = len(array)
    if n < 2:
        raise UserError(f"{x_name} has {n} row; it must have at least 2")
    classes, labels, label_names = None, None, None
    if context is not None:
        context = read_context(context, n, "context")
        if context.ndim == 1:
            labels, classes = context_classes(context, "context")
            context, label_names = one_hot(labels, classes), classes
    if label is not None:
        (labels,), label_names = encode_labels([read_labels(label, n, "label")], "label")
    whole = Split(array, context, labels, _other(x0, n, levels, "x0"), None if seen is None else seen.reshape(array.shape))
    fraction, held = _validation(val)
    if held is not None:
        _same_parts(held, whole, label is not None, x_name)
        known = classes or (), () if label is None else label_names or ()
        splits = {"train": whole, "val": _held(held, whole, levels, columns, *known)}
    elif fraction:
        count = round(n * fraction)
        if not 0 < count <= n - 2:
            raise UserError(f"val={val} of {n} rows is {count}: it must be at least 1 and leave 2 for training; val=None is no validation")
        splits = {name: rows(whole, index) for name, index in cut(n, n - count, count, 0).items()}
    else:
        splits = {"train": whole}
    _not_constant(splits["train"].x, columns, x_name, constant == "kept")
    return source(splits, levels, label_names)


def more(
    x: Any, *, event: tuple[int, ...], levels: int, x0: Any = None, mask: Any = None, columns: tuple[str, ...] = (), suffix: str = ""
) -> Split:
    """More examples of the kind that a model was trained on, with their x0 and mask: see `arrays` and `examples`.

    suffix: of the names in messages: "_val" makes x x_val.
    """
    array, seen = x, None
    if mask is not None:
        array, seen = _seen(as_array(x, f"x{suffix}")[0], mask, f"x{suffix}", f"mask{suffix}")
    found = examples(array, event=event, levels=levels, name=f"x{suffix}", columns=columns)
    other = _other(x0, len(found), levels, f"x0{suffix}")
    return Split(found, x0=other, mask=None if seen is None else seen.reshape(found.shape))


def _seen(array: np.ndarray, mask: Any, name: str, mask_name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(x with 0 in place of what was not observed, the mask as an array). UserError: it is not boolean or of another shape."""
    if mask is None:
        return array, None
    seen, _ = as_array(mask, mask_name)
    if seen.dtype.kind != "b" or seen.shape != array.shape:
        what = f"{seen.dtype} of shape {seen.shape}"
        raise UserError(f"{mask_name} is {what}; it must be bool of the shape of {name}, {array.shape}, True where an entry was observed")
    return np.where(seen, array, np.zeros((), array.dtype)), seen


def _other(x0: Any, n: int, levels: int, name: str) -> np.ndarray | None:
    """The other half of pairs, as a Source has it."""
    found = None if x0 is None else examples(x0, event=None, levels=levels, name=name)
    if found is not None and len(found) != n:
        raise UserError(f"{name} has {len(found)} rows for {n} examples")
    return found


def examples(x: Any, *, event: tuple[int, ...] | None, levels: int, name: str = "x", columns: tuple[str, ...] = ()) -> np.ndarray:
    """More examples of the kind that a model was trained on.

    Args:
        x: [N, *event], N >= 1, read as by `arrays`.
        event: shape of an example; None: any.
        levels: the source's levels; 0: continuous.
        name: the argument's name, for the errors.
        columns: names that the columns of a DataFrame must have, in this order; (): any.

    Returns:
        [N, *event] float32, or integers in 0 .. levels - 1 of the type of the training examples.

    Raises:
        UserError: another shape, another kind of numbers, NaN.

    Example:
        examples(x_test, event=(2,), levels=0, name="x_test")
    """
    array, own = as_array(x, name)
    if columns and own and own != columns:
        raise UserError(f"{name} has the columns {', '.join(own)}; the training data have {', '.join(columns)}")
    _check_numbers(array, own, name)
    if (array.dtype.kind == "f") != (levels == 0):
        wanted = f"floats; pass {name}.astype(float)" if levels == 0 else f"integers 0..{levels - 1}"
        raise UserError(f"{name} is {array.dtype}, and the training data are {wanted}")
    array = _values(array, own, levels, name)
    if event is not None and array.shape[1:] != tuple(event):
        raise UserError(f"{name} has examples of shape {array.shape[1:]}; those of the training data have {tuple(event)}")
    return array


def _levels_of(array: np.ndarray, columns: tuple[str, ...], levels: int | None, name: str) -> int:
    """The number of grey values of x; 0: continuous."""
    _check_numbers(array, columns, name)
    kind = array.dtype.kind
    if levels is not None:
        if not isinstance(levels, numbers.Integral) or isinstance(levels, bool) or not 2 <= levels <= MAX_LEVELS:
            raise UserError(f"levels={levels!r} is invalid; it must be a whole number in 2..{MAX_LEVELS}, or None")
        if kind == "f":
            raise UserError(f"levels={levels} is for integers, and {name} is {array.dtype}; leave it out, or pass integers")
        return int(levels)
    if kind in "fb":
        return 0 if kind == "f" else 2
    high = int(array.max())
    if array.dtype == np.uint8:
        if high <= 1:
            print(f"{name} is uint8 in 0..{high} and is read as 256 grey values; levels=2 for binary data", file=sys.stderr)
        return 256
    grey = f", or levels={max(high + 1, 2)} for grey values 0..{max(high, 1)}" if array.min() >= 0 and high < MAX_LEVELS else ""
    raise UserError(f"{name} is {array.dtype}: pass {name}.astype(float) for continuous data{grey}")


def _check_numbers(array: np.ndarray, columns: tuple[str, ...], name: str) -> None:
    """UserError: these are not numbers [N, ...]."""
    if not array.ndim:
        raise UserError(f"{name} is one value; it must be an array [N, ...]")
    if not array.size:
        raise UserError(f"{name} has the shape {array.shape}, without a number in it; it must be an array [N, ...]")
    if array.dtype.kind == "U":
        column = f" in the column {columns[0]!r}" if columns else ""
        raise UserError(f"{name} holds text{column}, such as {str(array.flat[0])!r}; it must hold numbers")


def _values(array: np.ndarray, columns: tuple[str, ...], levels: int, name: str) -> np.ndarray:
    """Examples as a Source has them: float32, or the smallest unsigned integers for `levels`; a read-only view where nothing is cast."""
    if levels:
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= levels:
            fits = f"; levels={high + 1} would fit" if low >= 0 and high < MAX_LEVELS else ""
            raise UserError(f"{name} has integers in {low}..{high}; with levels={levels} they must be in 0..{levels - 1}{fits}")
        array = (array[..., None] if array.ndim == 3 else array).astype(np.min_scalar_type(levels - 1), copy=False)
    else:
        array = finite(array, columns, name)
    array = (array[:, None] if array.ndim == 1 else array).view()
    array.flags.writeable = False
    return array


def _not_constant(x: np.ndarray, columns: tuple[str, ...], name: str, kept: bool) -> None:
    """UserError, or a message where such columns are kept: a column of a table of floats has one value in all training rows."""
    if x.dtype.kind != "f" or x.ndim != 2:
        return
    if found := [column_name(int(i), columns) for i in np.flatnonzero(x.min(axis=0) == x.max(axis=0))]:
        some = ", ".join(found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")
        if kept:
            return print(f"{name} has one value (in float32) in {some}: not rescaled, and a density is infinite there", file=sys.stderr)
        raise UserError(
            f"{name} has one value (in float32) in {some}, where a density is infinite: leave it out; "
            "images [N, H, W, C] may have constant pixels"
        )


class HeldOut(NamedTuple):
    """Validation arrays as the caller gives them; None: not given."""

    x: Any
    context: Any = None
    label: Any = None
    x0: Any = None
    mask: Any = None


def _validation(val: Any) -> tuple[float, HeldOut | None]:
    """(fraction, arrays) of the argument `val`: one of them, or 0.0 and None."""
    if val is None:
        return 0.0, None
    if isinstance(val, numbers.Real):
        if isinstance(val, bool) or not 0 <= float(val) < 1:
            raise UserError(f"val={val!r} is invalid; it must be a fraction in [0, 1), x_val, (x_val, context_val) or None")
        return float(val), None
    if isinstance(val, Mapping):
        for key in val:
            if key not in HeldOut._fields:
                raise unknown("val: the key", key, HeldOut._fields)
        if "x" not in val:
            raise UserError(f"val has {', '.join(val) or 'no keys'} and no x; known: {', '.join(HeldOut._fields)}")
        return 0.0, HeldOut(**val)
    if not isinstance(val, tuple):
        return 0.0, HeldOut(val)
    if len(val) not in (2, 3):
        raise UserError(f"val is a tuple of {len(val)}; it must be (x_val, context_val) or (x_val, context_val, label_val)")
    return 0.0, HeldOut(*val)


def _same_parts(held: HeldOut, train: Split, labelled: bool, x_name: str) -> None:
    """UserError: the validation arrays and the training arrays do not have the same parts."""
    gives = {"context": "(x_val, context_val)", "label": "(x_val, context_val, label_val)"}
    gives |= {name: f'{{"x": x_val, "{name}": {name}_val}}' for name in ("x0", "mask")}
    given = {"context": train.context is not None, "label": labelled, "x0": train.x0 is not None, "mask": train.mask is not None}
    for name, wanted in given.items():
        if (getattr(held, name) is not None) != wanted:
            has, has_not = (x_name, "val") if wanted else ("val", x_name)
            raise UserError(
                f"{has} has {'an' if name == 'x0' else 'a'} {name} and {has_not} has none; give both, val={gives[name]}, or none"
            )


def _held(
    held: HeldOut, train: Split, levels: int, columns: tuple[str, ...], classes: tuple[str, ...], label_names: tuple[str, ...]
) -> Split:
    """The validation split of arrays.

    classes: of the context; (): it is not one of class labels. label_names: of the argument `label`; (): it is not given.
    """
    own = more(held.x, event=train.x.shape[1:], levels=levels, x0=held.x0, mask=held.mask, columns=columns, suffix="_val")
    if own.x0 is not None and train.x0 is not None and own.x0.shape[1:] != train.x0.shape[1:]:
        raise UserError(f"x0_val has examples of shape {own.x0.shape[1:]}; those of x0 have {train.x0.shape[1:]}")
    x, context, label = own.x, None, None
    if train.context is not None:
        width = train.context.shape[1]
        context = conditions(held.context, len(x), width=width, label_names=classes, name="context_val")
        label = context.argmax(axis=1).astype(np.int32) if classes else None
    if label_names:
        label = class_numbers(read_labels(held.label, len(x), "label_val"), label_names, "label_val")
    return own._replace(context=context, label=label)
