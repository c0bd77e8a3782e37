"""Stand-ins for arrays and tables of packages that the tests do not need: polars, torch; sources compared, errors caught."""

from __future__ import annotations

import numpy as np
import pytest

from vaeflow import data
from vaeflow.errors import UserError


class Stand:
    """An object of another package: an array by `__array__` alone, as those of torch and polars are."""

    def __init__(self, array, **attributes):
        self.array = array
        self.__dict__.update(attributes)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype)


class Tensor(Stand):
    """A torch tensor that requires a gradient."""

    dtype = "torch.float32"

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")

    def detach(self):
        return Stand(self.array, dtype=self.dtype, float=lambda: Stand(self.array))


class Frame:
    """A polars DataFrame: names and columns."""

    def __init__(self, **columns):
        self.values = columns
        self.columns = list(columns)

    def iter_columns(self):
        return (Stand(np.asarray(column)) for column in self.values.values())

    def __array__(self, dtype=None, copy=None):
        return np.asarray(np.stack([np.asarray(column, object) for column in self.values.values()], 1))


class LazyFrame:
    """A polars LazyFrame: it has columns but no rows."""

    @property
    def columns(self):
        raise AssertionError("resolving the columns of a LazyFrame warns")


def line(*args, **kwargs) -> str:
    """The one line of the UserError that arrays(...) raises."""
    with pytest.raises(UserError) as caught:
        data.arrays(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(one: data.Source, other: data.Source) -> None:
    """The sources are equal bit for bit."""
    assert (one.levels, one.label_names, one.splits().keys()) == (other.levels, other.label_names, other.splits().keys())
    for name, split in one.splits().items():
        for key, a in split.arrays().items():
            b = other.split(name).arrays()[key]
            assert a.dtype == b.dtype, (name, key)
            np.testing.assert_array_equal(a, b)
        assert split.arrays().keys() == other.split(name).arrays().keys()
