"""Files of a user's own in every format: CSV with any separator, Parquet, HDF5, npy, Hugging Face datasets."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.array_toys import same
from tests.commands import refusal
from tests.data_toys import images, load
from vaeflow import data
from vaeflow.errors import UserError
from vaeflow.training import setup

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(30, 3)).astype(np.float32)
KINDS = np.array(["ant", "bee", "cat"] * 10)
GREY = images(30)


def npz(folder: Path, values: dict, **arrays) -> data.Source:
    """The source of the same arrays in an npz."""
    np.savez(folder / "same.npz", **arrays)
    return load(kind="npz", path=str(folder / "same.npz"), **values)


def write_csv(path: Path, separator: str, header: str, x=TABLE, kinds=KINDS) -> None:
    rows = [separator.join([*map(repr, map(float, row)), kind]) for row, kind in zip(x, kinds, strict=True)]
    path.write_text("\n".join([*([header.replace(",", separator)] if header else []), *rows]) + "\n")


@pytest.mark.parametrize("header", ["a,b,c,kind", ""])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " ", "   "])
def test_csv_with_any_separator(tmp_path, separator, header):
    write_csv(tmp_path / "t.csv", separator, header)
    values = dict(label="kind" if header else "3", context="label")
    found = load(kind="csv", path=str(tmp_path / "t.csv"), **values)
    same(found, npz(tmp_path, dict(context="label"), x=TABLE, label=KINDS))


def test_csv_of_numbers_alone_and_of_one_column(tmp_path):
    np.savetxt(tmp_path / "t.csv", TABLE.astype(np.float64), fmt="%.17g")
    same(load(kind="csv", path=str(tmp_path / "t.csv")), npz(tmp_path, {}, x=TABLE))
    (tmp_path / "one.csv").write_text("\n\n" + "\n".join(map(repr, map(float, TABLE[:, 0]))))
    same(load(kind="csv", path=str(tmp_path / "one.csv")), npz(tmp_path, {}, x=TABLE[:, :1]))
    (tmp_path / "years.csv").write_text("2019,2020,kind\n" + "1,2,x\n" * 20)  # data.label says that this is a header
    assert load(kind="csv", path=str(tmp_path / "years.csv"), label="kind").train.x.shape == (16, 2)


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [
        ("1.5,2,ant\n3,4,bee\n", "", "line 1: column '2' is not a number: 'ant'; the first line has numbers, so that it is no header$"),
        ("1.5,2,ant\n3,x,bee\n", "2", "line 2: column '1' is not a number: 'x'$"),
        ("1.5,2,ant\n3,4,bee\n", "kind", r"data.label='kind' is unknown; known: 0, 1, 2 \(its first line has numbers, so that it is no"),
        ("a;b\n1,5;2,5\n", "", "line 2: column 'a' is not a number: '1,5'; numbers need a decimal point"),
        ("a\tb\n1\t2\n3\n", "", "line 3: 1 cells where the header has 2"),
        ("1\t2\n3\t4\n3\n", "", "line 3: 1 cells where the first line has 2"),
        ("a b\n1 2\n\n3 z\n", "", "line 4: column 'b' is not a number: 'z'"),
    ],
)
def test_wrong_csv_is_one_clear_line(tmp_path, text, label, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load(kind="csv", path=str(tmp_path / "t.csv"), label=label)
    assert "\n" not in str(caught.value)


def test_parquet(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is an extra")
    frame = pandas.DataFrame(TABLE, columns=["a", "b", "c"]).assign(kind=KINDS)
    frame.sample(frac=1, random_state=0).sort_index().set_index(frame.index * 3).to_parquet(
        tmp_path / "t.parquet"
    )  # the index is no column
    values = dict(label="kind", context="label")
    wanted = npz(tmp_path, dict(context="label"), x=TABLE, label=KINDS)
    same(load(kind="parquet", path=str(tmp_path / "t.parquet"), **values), wanted)
    frame.assign(kind=frame.kind.astype("category")).to_parquet(tmp_path / "t.parquet")
    same(load(kind="parquet", path=str(tmp_path / "t.parquet"), **values), wanted)
    (tmp_path / "folder").mkdir()
    for name, part in (("train", frame[:20]), ("val", frame[20:])):
        part.to_parquet(tmp_path / "folder" / f"{name}.parquet")
    found = load(kind="parquet", path=str(tmp_path / "folder"), test_fraction=0.0, **values)
    arrays = dict(train=TABLE[:20], train_label=KINDS[:20], val=TABLE[20:], val_label=KINDS[20:])
    same(found, npz(tmp_path, dict(context="label", test_fraction=0.0), **arrays))

    def fails(message: str, table=None, label: str = "") -> None:
        if table is not None:
            table.to_parquet(tmp_path / "t.parquet")
        with pytest.raises(UserError, match=message) as caught:
            load(kind="parquet", path=str(tmp_path / "t.parquet"), label=label)
        assert "\n" not in str(caught.value)

    fails("the column 'kind' holds text", frame)
    fails("the column 'kind' holds text", frame[["kind"]])
    fails("data.label='knd' is unknown", label="knd")
    fails("has no column beside the label 'kind'", frame[["kind"]], "kind")
    fails(
        "has 1 values that are NaN or infinite; the first is in row 4, column 'b'", frame.assign(b=frame.b.where(frame.index != 4)), "kind"
    )
    fails("has no rows", frame[:0], "kind")
    fails("the column 'kind' has 1 missing values, the first in row 2", frame.assign(kind=frame.kind.where(frame.index != 2)), "kind")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 cut off")
    fails("cannot be read as parquet")


def test_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is an extra")
    path = str(tmp_path / "a.h5")
    arrays = dict(x=GREY, label=KINDS.astype("S3"), context=TABLE)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        file["points/train"], file["text"], file["flag"] = TABLE, ["ant"] * 30, TABLE > 0
        file["record"] = np.zeros(30, [("a", "f4")])
        file["far"] = h5py.ExternalLink("elsewhere.h5", "x")
    wanted = npz(tmp_path, dict(context="array"), x=GREY, label=KINDS, context=TABLE)
    same(load(kind="hdf5", path=path, context="array"), wanted)
    same(
        load(kind="hdf5", path=path, context="array", label="text", name="x")
        .map(lambda _, s: s._replace(label=None))
        ._replace(label_names=None),
        wanted.map(lambda _, s: s._replace(label=None))._replace(label_names=None),
    )
    assert load(kind="hdf5", path=path, label="text").label_names == ("ant",)
    found = load(kind="hdf5", path=path, train="points/train[:20]", test="points/train[20:]", val_fraction=0.0)
    np.testing.assert_array_equal(found.train.x, TABLE[:20])
    assert load(kind="hdf5", path=path, name="flag").levels == 2

    def fails(message: str, **values) -> None:
        with pytest.raises(UserError, match=message) as caught:
            load(kind="hdf5", path=path, **values)
        assert "\n" not in str(caught.value)

    fails("data.name='points' is unknown .*; known: context, flag, label, points/train, record, text, x$", name="points")
    fails(r"the array 'record' is .* of shape \(30,\); it must hold numbers", name="record")
    fails(r"the examples of 'train' must be numbers \[N, ...\]; they are <U3", name="text")
    Path(path).write_bytes(b"\x89HDF cut off")
    fails("cannot be read as hdf5")


def test_npy(tmp_path):
    np.save(tmp_path / "x.npy", GREY)
    same(load(kind="npy", path=str(tmp_path / "x.npy")), npz(tmp_path, {}, x=GREY))
    same(
        load(kind="npy", path=str(tmp_path / "x.npy"), train="x[:50%]", test="x[50%:]"),
        npz(tmp_path, dict(train="x[:50%]", test="x[50%:]"), x=GREY),
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, array in dict(train=TABLE, test=TABLE[:9], train_label=KINDS, test_label=KINDS[:9]).items():
        np.save(folder / f"{name}.npy", array)
    wanted = npz(tmp_path, dict(context="label"), train=TABLE, test=TABLE[:9], train_label=KINDS, test_label=KINDS[:9])
    same(load(kind="npy", path=str(folder), context="label"), wanted)

    def fails(message: str, path: Path) -> None:
        with pytest.raises(UserError, match=message) as caught:
            load(kind="npy", path=str(path))
        assert "\n" not in str(caught.value)

    np.save(tmp_path / "object.npy", np.array([{}] * 9, object), allow_pickle=True)
    fails("object.npy' cannot be read as npy: Object arrays cannot be loaded when allow_pickle=False", tmp_path / "object.npy")
    fails("same.npz' holds several arrays; set data.kind='npz'", tmp_path / "same.npz")
    (tmp_path / "x.npy").write_bytes(b"")
    fails("x.npy' cannot be read as npy", tmp_path / "x.npy")
    (tmp_path / "none").mkdir()
    fails("has no .npy files", tmp_path / "none")


def test_hugging_face_datasets(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the package datasets is not among those of the tests")
    from PIL import Image

    datasets.disable_progress_bars()
    classes = datasets.ClassLabel(names=["cat", "ant"])
    features = datasets.Features({"image": datasets.Image(), "label": classes})
    numbers = np.arange(30) % 2

    def pictures(rows: slice, label: np.ndarray):
        return datasets.Dataset.from_dict({"image": [Image.fromarray(x[..., 0]) for x in GREY[rows]], "label": label[rows]}, features)

    first, last, whole = slice(0, 20), slice(20, 30), slice(0, 30)
    datasets.DatasetDict(train=pictures(first, numbers), validation=pictures(last, numbers)).save_to_disk(tmp_path / "splits")
    names = np.array(["cat", "ant"])[numbers]
    arrays = dict(train=GREY[first], train_label=names[first], val=GREY[last], val_label=names[last])
    values = dict(context="label", test_fraction=0.0)
    same(load(kind="hf", path=str(tmp_path / "splits"), **values), npz(tmp_path, values, **arrays))
    rows = dict(train="train[:10]", val="train[10:]", test="val", context="label")
    assert len(load(kind="hf", path=str(tmp_path / "splits"), **rows).train.x) == 10
    datasets.DatasetDict(train=pictures(first, numbers), test=pictures(last, np.full(30, -1))).save_to_disk(tmp_path / "withheld")
    assert load(kind="hf", path=str(tmp_path / "withheld")).split("test").label is None
    pictures(whole, np.where(np.arange(30) < 3, -1, numbers)).save_to_disk(tmp_path / "some")

    columns = {"a": TABLE[:, 0], "b": TABLE[:, 1], "c": TABLE[:, 2], "kind": KINDS}
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "table")
    wanted = npz(tmp_path, dict(context="label"), x=TABLE, label=KINDS)
    same(load(kind="hf", path=str(tmp_path / "table"), label="kind", context="label"), wanted)
    datasets.Dataset.from_dict({"v": TABLE.tolist(), "s": KINDS, "l": [[1.0] * (i % 3) for i in range(30)]}).save_to_disk(
        tmp_path / "mixed"
    )
    same(load(kind="hf", path=str(tmp_path / "mixed"), name="v", label="s", context="label"), wanted)

    def fails(message: str, folder: str, **values) -> None:
        with pytest.raises(UserError, match=message) as caught:
            load(kind="hf", path=str(tmp_path / folder), **values)
        assert "\n" not in str(caught.value)

    fails("data.label='label': 3 examples have no label", "some")
    fails("has several columns; name that of the examples in data.name; known: v, s, l", "mixed")
    fails("data.name='w' is unknown; known: l, s, v", "mixed", name="w")
    fails("data.label='w' is unknown; known: l, s, v", "mixed", name="v", label="w")
    fails("the entries of the column 'l' differ in shape", "mixed", name="l")
    fails("the column 's' holds text", "mixed", name="s")
    fails("the column 'kind' holds text", "table")
    fails("cannot be read as hf: Directory .* is neither", "")


@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [("parquet", "pandas", "tables"), ("parquet", "pyarrow", "tables"), ("hdf5", "h5py", "hdf5"), ("hf", "datasets", "hf")],
)
def test_a_missing_package_is_one_line_with_its_extra(tmp_path, monkeypatch, kind, package, extra):
    if package == "pyarrow":
        pytest.importorskip("pandas", reason="pandas is an extra")
    monkeypatch.setitem(sys.modules, package, None)  # its import then fails
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as caught:
        load(kind=kind, path=str(tmp_path / "file"))
    assert str(caught.value) == f'data.kind={kind!r} needs the package {package}, which is not installed: pip install -e ".[{extra}]"'


def test_the_command_refuses_what_a_format_ignores(tmp_path):
    """Every kind of a file says which keys it does not read; a run of a notebook's arrays has no data here."""
    write_csv(tmp_path / "t.csv", ";", "")
    words = ["--config=configs/own_table.py", f"--config.data.path={tmp_path / 't.csv'}", "--config.data.label=3", "--config.data.batch=4"]
    assert refusal("train", *words, "--config.data.name=x").startswith(
        "data.name='x' is not read by data.kind='csv'; leave it empty, or data.kind: "
    )
    assert "trained on arrays of a notebook" in refusal("train", *words, "--config.data.kind=arrays")
    assert setup._UNREAD.keys() | {"pair"} == data.SOURCES.keys()
