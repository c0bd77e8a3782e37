"""GAS of the MAF paper: what it leaves out, pickles of every pandas that wrote one, and pickles that would run code."""

from __future__ import annotations

import base64
import builtins
import os
import pickle
import shlex
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands import call, refusal, train_only
from tests.data_toys import gas, load
from vaeflow.data.gas import convert, read_converted
from vaeflow.errors import UserError

# A DataFrame [20, 11] of Time, Meth, Eth, R0 .. R7 as pandas 0.20 in Python 2.7 pickled it.
PYTHON_2 = (
    "eNqtlltv0zAUx9PLujbdpdvC1t3HGCMbI7RbtwFCWoQACaIVaZofq8hJs7mizXZyASZRCR424Fvw0fgIfANwU0eoXq32AT+cX+0en/h/bCfnS9K+xG4d+5p94TnamYdbjvwS"
    "B/h19AsSW18h2YaUinJmywlwnf4F6RqMoLQZXF1CBuU6Q9E8GEUjZuSQ7QnacAPHc3HTl180L+z3x9jF544nQ47GltUa5FXOve58cnzNwr4jm67z0XzTGZFhTOzGPMbbMKGi"
    "dLSGSdsNW5dXXedW2Awa2PPwlWx6jn3h+oEX2oEMha6XTONG/8KUIV2jhPXtBKZVI2Hkr5lDnaql+ZhByXdPDMlIUAdFNVIo8blarb79Q1tkjKPA+lGDO3QVpw2aklmUPnYC"
    "AnMo9YqiiJInJZintgwL1O7CIrV7sERtBZap3YcVag9gldpDWHMCC6XdTnLvVsObE1gn/bNAF+l4DZsmIjiosGzca8OGSiZJgfwTdb8jSrkmVEcj1rEZ6Xjeq0OiOtDPlNRt"
    "BcYMo8yYZJxgTDNOMY4yJhjHpd42wzjNmGOcZMwyjjHmGUcYA4t08/LAqYHao3Qr2j5DueloPYu1bgu0fj/9FWuTsnp/Sly/yPj7iCVJ7xXH+5UELHLz+H4cP35+gZsnIr8e"
    "RaAnjh/Pi/02BJQE6xs2L5Len8UBcRVBnDj+joB8KwjyIAnyUtD7UxHst6hf4OKW9f6UBOdPpF/h4i7p/XlrXdw8Efn94Mmvk8/PoPO8LeCtfRpwjkX353+3Pb0/Rec1HlcG"
    "6NkVUBnyvon66wIWh9w3kS5NwOyA94w04JyvCZgdcp/558TzVAH5cy66t5Lg/bopoKIPdx74Pn+vFcH8gffi1nhg4Ro8JGOEFko7fGnwqFvvEIXWL5pKZskcKZJ5skAWyRJZ"
    "JitklXTKEfbBfYzbUEKZklauaGUot2GXljyYliKwR/IoY3UqPR8qNdhvw4GKsq1zz6RjPhzapmmFDVqPuaYp+82GTcuqzuc5H32gn6LMB9wMaZxnZCvEoR9YoaX9BYazYUQ="
)


class Attack:
    """Unpickled, it calls function(*args)."""

    def __init__(self, function: Any, *args: Any):
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def pickled(root: Path, content: bytes) -> Path:
    """The file gas/ethylene_CO.pickle with this content, without a converted one beside it."""
    path = root / "gas" / "ethylene_CO.pickle"
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".npz").unlink(missing_ok=True)
    path.write_bytes(content)
    return path


def read(root: Path):
    return load(kind="maf", name="gas", path=str(root))


def arrays(source):
    return [split.x for split in source.splits().values()]


def test_gas_leaves_out_columns_that_correlate_and_standardises_by_all_rows(tmp_path):
    frame = gas(tmp_path).drop(columns=["Time", "Meth", "Eth"])
    while np.any(counts := (frame.corr() > 0.98).to_numpy().sum(axis=1) > 1):
        frame = frame.drop(columns=frame.columns[np.where(counts)[0][0]])
    assert list(frame.columns) == ["R2", "R3", "R4", "R6", "R7", "R8", "R9", "R10"]
    x = frame.to_numpy()
    x = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    source = read(tmp_path)
    for split, expected in zip(arrays(source), (x[:243], x[243:270], x[270:]), strict=True):
        np.testing.assert_allclose(split, expected, rtol=1e-6, atol=1e-6)
    whole = np.concatenate(arrays(source)).astype(np.float64)
    np.testing.assert_allclose(whole.std(axis=0, ddof=1), 1, rtol=1e-6)
    assert abs(whole[:270].mean(axis=0)).max() > 1e-3  # not by train and val


# pandas 0.20, 0.18 and 0.16 have the same layout in modules of other names.
@pytest.mark.parametrize(
    "indexes",
    [{}, {"base": "pandas.indexes.base", "numeric": "pandas.indexes.numeric"}, dict.fromkeys(("base", "numeric"), "pandas.core.index")],
)
def test_gas_of_python_2(tmp_path, indexes):
    content = zlib.decompress(base64.b64decode("".join(PYTHON_2)))
    for name, module in indexes.items():
        content = content.replace(f"cpandas.core.indexes.{name}\n".encode(), f"c{module}\n".encode())
    call("prepare", f"--gas={pickled(tmp_path, content)}")
    whole = np.concatenate(arrays(read(tmp_path)))
    assert whole.shape == (20, 8)
    i = np.arange(20)
    for k, column in enumerate(whole.T):  # of each sensor the values, in the pickle's order
        value = np.sort((i * (k + 2) + i // (k + 1)) % 7)
        np.testing.assert_allclose(np.sort(column), (value - value.mean()) / value.std(ddof=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_layout_that_pandas_pickles(tmp_path, protocol):
    pandas = pytest.importorskip("pandas")
    x = np.random.default_rng(0).normal(size=(7, 4))
    frame = pandas.DataFrame(x, columns=list("abcd"))
    mixed = frame.assign(e=np.arange(7), f=x[:, 0].astype(np.float32)).sample(frac=0.5, random_state=0)
    mixed.insert(1, "g", 3.5)
    for table in (frame, mixed, frame[::2], frame[["d", "a"]]):
        table.to_pickle(tmp_path / "table.pickle", protocol=protocol)
        columns, data = read_converted(convert(tmp_path / "table.pickle"))
        assert columns == list(table.columns)
        np.testing.assert_array_equal(data, table.to_numpy(np.float64))


def test_neither_reading_nor_converting_needs_pandas(tmp_path, monkeypatch):
    gas(tmp_path)
    first = arrays(read(tmp_path))
    monkeypatch.setitem(sys.modules, "pandas", None)  # its import then fails
    convert(tmp_path / "gas" / "ethylene_CO.pickle")
    assert all(np.array_equal(a, b) for a, b in zip(first, arrays(read(tmp_path)), strict=True))


@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.mkdir, ("marker",), f"{os.name}.mkdir"),
        (os.system, ("mkdir marker",), f"{os.name}.system"),
        (builtins.eval, ("__import__('os').mkdir('marker')",), "builtins.eval"),
        (builtins.getattr, ("a", "upper"), "builtins.getattr"),
        (np.load, ("other.npy", None, True), "numpy.load"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_runs_code_is_not_converted(tmp_path, monkeypatch, function, args, name, protocol):
    monkeypatch.chdir(tmp_path)
    frame = gas(tmp_path)
    frame.attrs["note"] = Attack(function, *args)
    for value in (Attack(function, *args), [1.0, Attack(function, *args)], frame)[: 3 if protocol else 2]:
        path = pickled(tmp_path, pickle.dumps(value, protocol))
        with pytest.raises(
            UserError, match=rf"^--gas='{path}' is not converted: it names '[\w.]*{name.rpartition('.')[2]}', .*"
        ) as refused:
            convert(path)
        assert "\n" not in str(refused.value)
    assert sorted(os.listdir(tmp_path)) == ["gas"] and os.listdir(tmp_path / "gas") == ["ethylene_CO.pickle"]


@pytest.mark.parametrize(
    ("content", "held"),
    [
        (b"\x80\x02cut off", "is not a pickled DataFrame of numbers"),
        (b"\x80\x02cpandas.core.frame\nDataFrame\n}b.", "is not a pickled DataFrame of numbers: TypeError"),  # the class's own state
        (b"\x80\x02]}X\x01\x00\x00\x00aK\x01sb.", "is not a pickled DataFrame of numbers"),  # a list's state
        (b"\x80\x02\x82\x01.", "is not a pickled DataFrame of numbers"),  # a registered extension
        (b"\x80\x02K\x01Q.", "is not a pickled DataFrame of numbers"),  # a persistent id
        (pickle.dumps({"a": [1.0]}), "it has a dict in place of a DataFrame"),
    ],
)
def test_what_is_no_table(tmp_path, content, held):
    line = refusal("prepare", f"--gas={pickled(tmp_path, content)}")
    assert held in line and os.listdir(tmp_path / "gas") == ["ethylene_CO.pickle"]


def test_columns_that_are_no_numbers(tmp_path):
    pandas = pytest.importorskip("pandas")
    for column, dtype in ((["a", "b"], "O8"), ([True, False], "b1")):
        pandas.DataFrame({"x": column}).to_pickle(tmp_path / "a.pickle")
        with pytest.raises(UserError, match=f"it has columns that are not numbers \\(dtype '{dtype}'\\)"):
            convert(tmp_path / "a.pickle")


def test_wrong_flags(tmp_path):
    assert "--gas takes no other flag" in refusal("prepare", "--gas=a.pickle", "--dataset=mnist")
    assert "--gas='no/where.pickle' cannot be read: No such file" in refusal("prepare", "--gas=no/where.pickle")
    assert f"--gas='{tmp_path}' cannot be read" in refusal("prepare", f"--gas={tmp_path}")


def test_a_converted_file_that_is_damaged(tmp_path):
    gas(tmp_path)
    path = tmp_path / "gas" / "ethylene_CO.npz"
    with pytest.raises(UserError, match=r"must hold data \[N, C\] of float64 and columns \[C\] of text"):
        np.savez(path, data=np.zeros((3, 2)), columns=["a"])
        read(tmp_path)
    with pytest.raises(UserError, match="cannot be read as a converted table: Object arrays"):
        np.savez(path, data=np.zeros((3, 1)), columns=np.array([Attack(os.mkdir, str(tmp_path / "marker"))], object))
        read(tmp_path)
    with pytest.raises(UserError, match="cannot be read as a converted table"):
        path.write_bytes(path.read_bytes()[:100])
        read(tmp_path)
    with pytest.raises(UserError, match="holds one bare array"), path.open("wb") as file:
        np.save(file, np.zeros((3, 2)))
        file.flush()
        read(tmp_path)
    assert not (tmp_path / "marker").exists()


def test_a_workdir_runs_no_code_of_the_folder_that_it_names(tmp_path):
    """A stranger's workdir whose data.path holds a pickle in place of the table."""
    root, workdir = tmp_path / "it's data", tmp_path / "run"
    root.mkdir()
    gas(root)
    steps = [f"--config.{key}=2" for key in ("train.steps", "train.eval_every", "train.checkpoint_every")]
    words = ["--config=configs/table_tabular.py:gas_gaussian,cpu", f"--config.data.path={root}", "--config.data.batch=32"]
    train_only(*words, *steps, f"--workdir={workdir}")
    path = pickled(root, pickle.dumps(Attack(os.mkdir, str(tmp_path / "marker"))))
    command = f"python -m experiments.prepare --gas={shlex.quote(str(path))}"
    for name, *more in (("evaluate",), ("encode",), ("explore",), ("diagnose", "--measures=iwae")):
        line = refusal(name, f"--workdir={workdir}", *more)
        assert line.endswith(f"has no gas/ethylene_CO.npz; write it from the pickle, once: {command}")
    with pytest.raises(UserError, match="it names"):
        call(*[word.removeprefix("experiments.") for word in shlex.split(command)[2:]])
    assert not (tmp_path / "marker").exists()
