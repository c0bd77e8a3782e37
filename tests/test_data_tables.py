"""A user's own arrays: npz and csv."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.commands import call, refusal
from tests.data_toys import images, load, save_png
from vaeflow.errors import UserError
from vaeflow.evaluation.results import flat

TABLE = "a,b,kind\n" + "".join(f"{i},{i * 0.5},{'ant' if i % 3 else 'bee'}\n" for i in range(20))


def save(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    return dict(kind="npz", path=str(tmp_path / "a.npz"))


def test_npz_of_one_array_is_split_by_fraction(tmp_path):
    x, label = images(50, (4, 3)), np.arange(50) % 5 + 3
    source = load(**save(tmp_path, x=x, label=label, context=np.arange(50)[:, None]), context="array", val_fraction=0.2)
    assert [len(s.x) for s in source.splits().values()] == [35, 10, 5]
    assert source.levels == 256 and source.train.x.shape[1:] == (4, 3, 1) and source.label_names == ("3", "4", "5", "6", "7")
    for split in source.splits().values():  # rows stay together
        row = np.asarray(split.context)[:, 0].astype(int)
        np.testing.assert_array_equal(split.x[..., 0], x[row])
        np.testing.assert_array_equal(split.label, row % 5)


def test_npz_with_its_own_splits(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 3))
    arrays = dict(train=x[:20], test=x[20:], train_y=np.arange(20) % 2, test_y=np.arange(10) % 3)
    source = load(**save(tmp_path, **arrays), label="y", context="label")
    assert [len(s.x) for s in source.splits().values()] == [18, 2, 10]  # the missing one is taken from train
    assert source.levels == 0 and source.train.x.dtype == np.float32
    assert source.train.context is not None and source.train.context.shape == (18, 3)  # the classes of all splits
    np.testing.assert_array_equal(source.split("test").x, x[20:].astype(np.float32))


def test_npz_with_splits_that_the_config_names(tmp_path):
    """Rows of arrays, as for TFDS; labels and contexts follow; what is not named is carved."""
    x = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    saved = save(tmp_path, val=x[:20], test=x[20:], val_label=np.arange(20) % 2, test_label=np.arange(10) % 2)
    source = load(**saved, train="val[:90%]", val="val[-10%:]", test="test", context="label")
    for name, rows in (("train", x[:18]), ("val", x[18:20]), ("test", x[20:])):
        np.testing.assert_array_equal(source.split(name).x, rows)
    np.testing.assert_array_equal(source.train.label, np.arange(18) % 2)
    source = load(**saved, train="val", test="test[4:-2]", val_fraction=0.5)
    assert [len(s.x) for s in source.splits().values()] == [10, 10, 4]


def test_npz_array_by_name_and_binary_values(tmp_path):
    source = load(**save(tmp_path, faces=images(20, top=2), other=np.zeros(3)), name="faces", val_fraction=0.0, test_fraction=0.0)
    assert source.levels == 2 and source.val is None and source.test is None and len(source.train.x) == 20
    assert load(**save(tmp_path, x=images(20, (6,), top=2) > 0)).levels == 2


@pytest.mark.parametrize(("levels", "dtype"), [(2, np.uint8), (17, np.uint8), (256, np.uint8), (257, np.uint16), (2**16, np.uint16)])
def test_npz_of_integers_with_a_number_of_levels(tmp_path, levels, dtype):
    x = np.random.default_rng(0).integers(0, levels, (60, 4, 3))
    x[0, 0, :2] = 0, levels - 1
    for kind in (np.int64, np.uint32, dtype):
        source = load(**save(tmp_path, x=x.astype(kind)), levels=levels)
        assert source.levels == levels and {split.x.dtype for split in source.splits().values()} == {np.dtype(dtype)}
        whole = np.concatenate([split.x for split in source.splits().values()])
        np.testing.assert_array_equal(np.sort(whole, axis=None), np.sort(x, axis=None))
    source = load(**save(tmp_path, x=x), levels=levels, binarize="threshold")
    assert source.levels == 2 and (levels == 2 or abs(source.train.x.mean() - 0.5) < 0.1)


def test_npz_of_two_values_may_have_more_levels(tmp_path):
    assert load(**save(tmp_path, x=images(20, (6,), top=2)), levels=17).levels == 17
    source = load(**save(tmp_path, train=images(20, (6,), top=2), test=images(9, (6,), top=66)), levels=66)
    assert source.levels == 66 and source.split("test").x.dtype == np.uint8


@pytest.mark.parametrize(
    ("arrays", "values", "message"),
    [
        (dict(val=np.zeros((5, 2))), {}, "has no array 'train' or 'x'; name the training examples in data.name, or .*; known: val"),
        (dict(x=np.zeros((9, 2))), dict(name="y"), "data.name='y' is unknown; known: x"),
        (dict(x=np.zeros((9, 2))), dict(label="y"), "data.label='y' is unknown; known: x"),
        (dict(x=np.zeros((9, 2))), dict(context="label"), "data.context='label': data.kind='npz' has no labels in the split 'train'"),
        (dict(x=np.zeros((9, 2)), label=-np.ones(8)), {}, "'x' has 9 examples but 8 of 'label'"),
        (dict(x=np.zeros(())), {}, r"the array 'x' is one value; it must be \[N, ...\]"),
        (
            dict(x=np.zeros((9, 2))),
            dict(val="x"),
            "data.train='': data.kind='npz' needs the training examples where data.val or data.test is named",
        ),
        (dict(x=np.zeros((9, 2))), dict(name="x", train="x"), "data.name='x' and data.train='x' both name the training examples"),
        (dict(x=np.zeros((9, 2))), dict(train="y[:3]"), r"data.train='y\[:3\]' is no array and no rows of one; known: x, and rows such as"),
        (dict(x=np.zeros((9, 2))), dict(train="x[:99]"), r"data.train='x\[:99\]' asks for the rows 0 to 99 of 9"),
        (dict(x=np.zeros((9, 2))), dict(train="x[:6]", val="x[5:]"), "share examples of 'x'; splits must not overlap"),
        (dict(x=np.full((9, 2), np.nan)), {}, "values that are NaN or infinite in x; the first is in example 0"),
        (dict(x=np.zeros(9)), {}, r"the examples of 'train' must be numbers \[N, ...\]; they are float64 of shape \(9,\)"),
        (
            dict(x=np.full((9, 2), 300)),
            {},
            r"integers are read as grey values in 0..255, these are in 0..300; set data.levels=301, or save continuous data as floats$",
        ),
        (dict(x=np.full((9, 2), -1)), {}, "these are in -1..0; add an offset and set data.levels, or save"),
        (dict(x=np.full((9, 2), 70_000)), {}, "these are in 0..70000; save continuous data as floats"),
        (dict(x=np.full((9, 2), 20)), dict(levels=17), "data.levels=17: integers must be in 0..16, these are in 0..20; set data.levels=21"),
        (dict(x=np.full((9, 2), -1)), dict(levels=17), r"a.npz': data.levels=17: integers must be in 0..16, these are in -1..0; add an"),
        (dict(x=np.full((9, 2), 0)), dict(levels=1), r"data.levels=1 is invalid; it must be 0 \(inferred\) or in 2..65536"),
        (dict(x=np.full((9, 2), 0)), dict(levels=70_000), "data.levels=70000 is invalid"),
        (dict(x=np.full((9, 2), 0)), dict(levels=-1), "data.levels=-1 is invalid; it must be >= 0"),
        (dict(x=np.full((9, 2), 0.5)), dict(levels=17), "data.levels=17 is for integers, but these data are floats; set it to 0"),
        (dict(x=np.zeros((4, 2))), {}, "data.val_fraction=0.1 of 4 examples is none"),
        (dict(x=np.zeros((9, 2))), dict(val_fraction=0.9), "leave no training example of 9"),
        (dict(train=np.zeros((9, 2)), test=np.zeros((9, 3))), {}, r"'test' has examples of shape \(3,\), the split 'train' of \(2,\)"),
        (dict(train=np.zeros((9, 2)), test=np.zeros((9, 2), int)), {}, "test has integers and train has floats; use one type"),
        (dict(train=np.zeros((9, 2)), test=np.zeros((0, 2))), {}, "the split 'test' is empty"),
        (dict(x=np.array([{}] * 9, object)), {}, "cannot be read as npz: Object arrays"),
    ],
)
def test_wrong_npz_is_one_clear_line(tmp_path, arrays, values, message):
    with pytest.raises(UserError, match=message):
        load(**save(tmp_path, **arrays), **values)


def test_a_file_that_is_no_npz(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(UserError, match="cannot be read as npz"):
        load(kind="npz", path=str(tmp_path / "a.npz"))
    np.save(tmp_path / "b.npy", np.zeros((9, 2)))
    with pytest.raises(UserError, match="one bare array"):
        load(kind="npz", path=str(tmp_path / "b.npy"))


@pytest.mark.parametrize("levels", [17, 1000])
def test_a_flow_of_integers(tmp_path, levels):
    """Trained for a few steps, evaluated and sampled by the commands; the density is one of integers 0 .. levels - 1."""
    saved = save(tmp_path, x=np.random.default_rng(0).integers(0, levels, (300, 6)))
    small = ("data.batch=32", "parts.steps.n=1", "parts.net.hidden=8", "train.steps=6", "train.eval_every=3", "train.checkpoint_every=3")
    model = (f"model.levels={levels}", "model.dequantize=uniform", "eval.k=4", "eval.chunk=2", "sample.n=9")
    words = [f"--config.{word}" for word in (*small, *model, f"data.path={saved['path']}")]
    words = ["--config=configs/own_table.py:npz", *words, f"--workdir={tmp_path / 'run'}"]
    wrong = f"model.levels={levels} does not fit the data" if levels < 256 else f"data.levels={levels}"
    assert wrong in (line := refusal("train", *words)) and "data.levels" in line
    call("train", *words, f"--config.data.levels={levels}")
    call("sample", f"--workdir={tmp_path / 'run'}")
    results = flat(json.loads((tmp_path / "run" / "results.json").read_text()))
    assert abs(results["nll"] / (6 * np.log(levels)) - 1) < 0.1  # uniform noise has no less than 1
    x = np.load(tmp_path / "run" / "samples.npz")["x"]
    assert x.shape == (9, 6) and np.array_equal(x, np.round(x)) and x.min() >= 0 and x.max() < levels


@pytest.mark.parametrize("row", ["digits_vae", "densities", "own_images"])
def test_levels_of_data_that_have_their_own_are_refused(row, tmp_path):
    for i in range(20):
        save_png(tmp_path / f"{i}.png", images(1)[0])
    words = [f"--config=configs/{row}.py", "--config.data.levels=17", "--config.data.batch=2"]
    words += [f"--config.data.path={tmp_path}"] if row == "own_images" else []
    assert refusal("train", *words).endswith("; set it to 0, or data.kind: npz, npy, hdf5, hf")


def test_csv_with_a_label(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    source = load(kind="csv", path=str(tmp_path / "t.csv"), label="kind", context="label")
    assert [len(s.x) for s in source.splits().values()] == [16, 2, 2] and source.label_names == ("ant", "bee")
    for split in source.splits().values():
        np.testing.assert_allclose(split.x[:, 1], split.x[:, 0] / 2)
        np.testing.assert_array_equal(split.label, split.x[:, 0] % 3 == 0)
    assert source.train.x.dtype == np.float32 and source.levels == 0


def test_csv_in_a_folder_has_its_own_splits(tmp_path):
    for name, rows in (("train", 12), ("val", 5)):
        text = "\ufeff" + '"a, b",c\r\n' + "".join(f"{i},{i}e-1\r\n" for i in range(rows))
        (tmp_path / f"{name}.csv").write_text(text, newline="")
    source = load(kind="csv", path=str(tmp_path), test_fraction=0.0)
    assert len(source.train.x) == 12 and len(source.split("val").x) == 5 and source.test is None
    np.testing.assert_allclose(source.train.x[:, 1], np.arange(12) / 10, rtol=1e-6)
    (tmp_path / "val.csv").write_text("c,b\n1,2\n")
    with pytest.raises(UserError, match=r"has the columns c, b, train\.csv has a, b, c"):
        load(kind="csv", path=str(tmp_path))


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [
        (TABLE, "", "line 2: column 'kind' is not a number: 'bee'; a column of labels is named in data.label"),
        (TABLE, "knd", r"data.label='knd' is unknown \(did you mean 'kind'\?\); known: a, b, kind"),
        (TABLE + "1,,ant\n", "kind", "line 22: column 'b' is not a number: ''"),
        (TABLE + "1,2\n", "kind", "line 22: 2 cells where the header has 3"),
        (TABLE + "nan,2,ant\n", "kind", "NaN or infinite in x"),
        ("", "", "t.csv' is empty"),
        ("\n \n", "", "t.csv' is empty"),
        ("a,b\n", "", "has a header but no rows"),
        ("a\n1\n", "a", "has no column beside the label 'a'"),
    ],
)
def test_wrong_csv_is_one_clear_line(tmp_path, text, label, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        load(kind="csv", path=str(tmp_path / "t.csv"), label=label)
