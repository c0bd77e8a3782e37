"""data.arrays of pandas, polars and torch, where they are installed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.array_toys import line, same
from vaeflow import data

TABLE = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)


def test_dataframes_of_pandas():
    pandas = pytest.importorskip("pandas", reason="pandas is an extra")
    frame = pandas.DataFrame(TABLE, columns=["a", "b", "c"])
    same(data.arrays(frame), data.arrays(TABLE))
    assert np.shares_memory(data.arrays(frame, val=None).train.x, frame.to_numpy())
    same(data.arrays(frame.a), data.arrays(TABLE[:, 0]))
    mixed = frame.assign(n=np.arange(40), flag=np.arange(40) % 2 == 0, one=pandas.array([1, 2] * 20, "Int64"), f=frame.a.astype("Float64"))
    assert data.arrays(mixed).train.x.shape == (36, 7)
    kinds = pandas.Series(["ant", "bee"] * 20)
    for context in (kinds, kinds.astype("category"), kinds.astype("string"), kinds.to_frame()):
        assert data.arrays(frame, context).label_names == ("ant", "bee")
    assert "the column 'kind' holds text (row 0: 'ant')" in line(frame.assign(kind=kinds))
    assert (
        line(frame.assign(b=frame.b.where(frame.index != 7)))
        == "x has 1 values that are NaN or infinite; the first is in row 7, column 'b'"
    )
    assert "x has one value (in float32) in column 'd', where" in line(frame.assign(d=1.0))
    missing = frame.assign(n=pandas.array([None, 2] * 20, "Int64"))
    assert "has 20 values that are NaN or infinite; the first is in row 0, column 'n'" in line(missing)
    assert "context has 1 missing values, the first in row 39" in line(frame, kinds.where(frame.index < 39))
    assert "the column 'day' holds dates" in line(frame.assign(day=pandas.Timestamp("2020-01-01")))
    assert line(frame, val=frame[["b", "a", "c"]]) == "x_val has the columns b, a, c; the training data have a, b, c"
    assert "without columns" in line(frame[[]])
    twice = pandas.concat([frame, frame], axis=1)
    assert data.arrays(twice).train.x.shape == (36, 6)


def test_polars():
    polars = pytest.importorskip("polars", reason="polars is not among the packages of the tests")
    frame = polars.DataFrame({"a": TABLE[:, 0], "b": TABLE[:, 1], "n": range(40), "flag": [True, False] * 20, "kind": ["ant", "bee"] * 20})
    source = data.arrays(frame.drop("kind"), frame["kind"])
    assert source.train.x.shape == (36, 4) and source.label_names == ("ant", "bee")
    assert "the column 'kind' holds text" in line(frame)
    assert "pass x.collect()" in line(frame.lazy())


def test_torch():
    torch = pytest.importorskip("torch", reason="torch is not among the packages of the tests")
    same(data.arrays(torch.tensor(TABLE, requires_grad=True)), data.arrays(TABLE))
    assert data.arrays(torch.tensor(TABLE, dtype=torch.bfloat16)).train.x.dtype == np.float32
    assert "is on the device meta; pass x.cpu()" in line(torch.zeros(4, 2, device="meta"))
