"""data.arrays on random arrays of every type, shape and container: a Source that keeps its contract, or one clear line."""

from __future__ import annotations

import numpy as np

from tests.array_toys import Frame, Stand, Tensor
from vaeflow import data
from vaeflow.errors import UserError

DTYPES = (
    *("float16", "float32", "float64", "longdouble", "bool", "uint8", "int8", "uint16", "int16", "int32", "int64", "uint64"),
    *("complex64", "object", "U2", "S3", "M8[s]", "m8[s]", ">f4", ">i4"),
)


def draw_array(rng: np.random.Generator, rows: int | None = None) -> np.ndarray:
    """An array of a random type, shape and content: also of no rows, with NaN, with constant columns."""
    shape = tuple(rng.integers(0 if rng.random() < 0.1 else 1, 5, rng.integers(0, 4)))
    rows = int(rng.choice([0, 1, 2, 3, 20, 40], p=[0.05, 0.05, 0.1, 0.1, 0.3, 0.4])) if rows is None else rows
    full = shape if rng.random() < 0.05 else (rows, *shape)
    dtype = np.dtype(str(rng.choice(DTYPES if rng.random() < 0.5 else ("float32", "float64", "uint8", "bool"))))
    x = (
        rng.normal(size=full) * rng.choice([0, 1, 3, 1e5, 1e30, 1e39], p=[0.1, 0.4, 0.2, 0.1, 0.1, 0.1])
        if dtype.kind in "fcO"
        else rng.integers(rng.choice([0, 0, 0, -1]), rng.choice([2, 5, 120]), full)
    )
    x = np.asarray(x, np.complex64 if dtype.kind == "c" else None)
    if dtype.kind == "f" and x.size and rng.random() < 0.2:
        x.flat[rng.integers(x.size)] = rng.choice([np.nan, np.inf])
    with np.errstate(over="ignore"):
        return x.astype(dtype)


def wrapped(rng: np.random.Generator, x: np.ndarray):
    """The array in a random container."""
    import jax.numpy as jnp

    choice = rng.integers(7)
    if choice == 0:
        return x.tolist()
    if choice == 1:
        return Stand(x)
    if choice == 2:
        return Tensor(x)
    if choice == 3 and x.dtype.kind in "fiub" and x.dtype.isnative and x.dtype.itemsize <= 4:
        return jnp.asarray(x)
    if choice == 4 and x.ndim == 2:
        return Frame(**{f"c{i}": x[:, i] for i in range(x.shape[1])})
    if choice == 5 and x.ndim:
        return x[::-1]
    return x


def check_source(source: data.Source, n: int, x) -> None:
    """The contract of Source and Split, and that every row of x is in one split."""
    event = source.train.x.shape[1:]
    for split in source.splits().values():
        assert split.x.shape[1:] == event and split.x.ndim >= 2 and split.x.size
        assert split.x.dtype == (np.min_scalar_type(source.levels - 1) if source.levels else np.float32) and split.x.dtype.isnative
        assert np.isfinite(split.x).all() and (not source.levels or split.x.max() < source.levels)
        if split.context is not None:
            assert split.context.dtype == np.float32 and split.context.ndim == 2 and len(split.context) == len(split.x)
            assert np.isfinite(split.context).all()
        if split.label is not None:
            assert source.label_names is not None and split.label.dtype == np.int32 and split.label.shape == (len(split.x),)
            assert split.label.min() >= 0 and split.label.max() < len(source.label_names)
    assert source.test is None and (not source.levels or np.asarray(x).min() >= 0)
    if n:  # validation is a fraction: disjoint and complete
        whole = np.concatenate([split.x.reshape(len(split.x), -1) for split in source.splits().values()])
        wanted = np.asarray(x).reshape(n, -1).astype(whole.dtype)
        np.testing.assert_array_equal(whole[np.lexsort(whole.T)], wanted[np.lexsort(wanted.T)])


def test_random_arrays_fit_or_give_one_clear_line():
    """Of 600 draws of every type and shape, no exception but a UserError of one line; a good part fits."""
    fits, lines = 0, set()
    for seed in range(600):
        rng = np.random.default_rng(seed)
        x = draw_array(rng)
        n = len(x) if x.ndim else 0
        context = wrapped(rng, draw_array(rng, n)) if rng.random() < 0.3 else None
        label = wrapped(rng, draw_array(rng, n)) if rng.random() < 0.1 else None
        val = [0.1, 0.3, None, 0.0, wrapped(rng, draw_array(rng)), (x[:3] if x.ndim else x, context)][
            rng.choice(6, p=[0.3, 0.3, 0.1, 0.1, 0.1, 0.1])
        ]
        levels = [None, 2, 5, 256, 300][rng.choice(5, p=[0.6, 0.1, 0.1, 0.1, 0.1])]
        try:
            source = data.arrays(wrapped(rng, x), context, label=label, val=val, levels=levels)
        except UserError as error:
            assert str(error) and "\n" not in str(error) and len(str(error)) < 300, (seed, str(error))
            lines.add(str(error))
        else:
            fits += 1
            check_source(source, n if val is None or isinstance(val, float) else 0, x)
    assert fits > 100 and len(lines) > 100
