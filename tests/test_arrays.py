"""data.arrays: arrays of every type and shape become a Source, or give one clear line."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from tests.array_toys import Frame, LazyFrame, Stand, Tensor, line, same
from tests.data_toys import images, load
from vaeflow import data
from vaeflow.data.contexts import conditions
from vaeflow.data.from_arrays import examples
from vaeflow.errors import UserError

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(40, 3)).astype(np.float32)
GREY = images(40, (4, 3, 1))


@pytest.mark.parametrize("val", [0.0, 0.1, 0.25])
@pytest.mark.parametrize(
    ("x", "levels"),
    [(TABLE, 0), (TABLE.astype(np.float64), 0), (GREY, 0), (GREY[..., 0], 0), (GREY > 99, 0), (GREY.astype(np.int64), 300)],
    ids=["float32", "float64", "uint8", "uint8_without_channels", "bool", "int64"],
)
def test_it_is_the_source_of_the_same_npz(tmp_path, x, levels, val):
    label = np.arange(40) % 4
    np.savez(tmp_path / "a.npz", x=x, label=label)
    fractions = dict(val_fraction=val, test_fraction=0.0)
    stored = load(kind="npz", path=str(tmp_path / "a.npz"), levels=levels, context="label", **fractions)
    same(data.arrays(x, label, val=val, levels=levels or None), stored)
    same(data.arrays(x, label.astype(str), val=val, levels=levels or None), stored)
    without = stored.map(lambda _, split: split._replace(context=None))
    same(data.arrays(x, label=label, val=val, levels=levels or None), without)


def test_float64_is_said_once_and_float32_is_not_copied(capsys):
    source = data.arrays(TABLE, val=None)
    assert capsys.readouterr().err == "" and np.shares_memory(source.train.x, TABLE) and TABLE.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        source.train.x[0] = 0
    assert np.shares_memory(data.arrays(GREY, val=None).train.x, GREY)
    data.arrays(TABLE.astype(np.float64), TABLE.astype(np.float64), val=(TABLE.astype(np.float64), TABLE), x_name="points")
    assert capsys.readouterr().err == "points is float64 and is cast to float32\n"
    data.arrays(TABLE.astype(np.float16))
    assert capsys.readouterr().err == ""
    assert data.arrays(GREY % 2).levels == 256
    assert capsys.readouterr().err == "x is uint8 in 0..1 and is read as 256 grey values; levels=2 for binary data\n"


def test_packages_by_their_arrays():
    wanted = data.arrays(TABLE)
    swapped = TABLE.astype(TABLE.dtype.newbyteorder())
    for x in (
        TABLE.tolist(),
        jnp.asarray(TABLE),
        Stand(TABLE),
        Tensor(TABLE),
        np.ma.masked_array(TABLE),
        np.asfortranarray(TABLE),
        swapped,
    ):
        same(data.arrays(x), wanted)
    half = jnp.asarray(TABLE, jnp.bfloat16)
    tensor = Tensor(np.asarray(half.astype(jnp.float32)))
    tensor.dtype = "torch.bfloat16"  # which numpy cannot read
    same(data.arrays(half), data.arrays(np.asarray(half.astype(jnp.float32))))
    same(data.arrays(tensor), data.arrays(half))
    same(data.arrays(Frame(a=TABLE[:, 0], b=TABLE[:, 1].astype(np.float64), c=TABLE[:, 2])), wanted)
    assert data.arrays(TABLE[:, 0]).train.x.shape == (36, 1)
    assert data.arrays(jnp.arange(40, dtype=jnp.int4) % 4, levels=4).levels == 4


def test_validation_arrays():
    kinds, more = np.array(["ant", "bee"] * 20), RNG.normal(size=(6, 3))
    source = data.arrays(TABLE, kinds, val=(more, ["bee"] * 6))
    assert source.test is None and len(source.train.x) == 40 and source.train.x.dtype == source.split("val").x.dtype == np.float32
    np.testing.assert_array_equal(source.split("val").context, [[0, 1]] * 6)
    np.testing.assert_array_equal(source.split("val").label, [1] * 6)
    assert data.arrays(TABLE, val=None).val is None and data.arrays(TABLE, val=0).val is None
    val = data.arrays(GREY, label=kinds, levels=256, val=(GREY[:3].astype(np.int64), None, kinds[:3])).split("val")
    assert val.x.dtype == np.uint8 and val.label is not None and val.label.tolist() == [0, 1, 0]
    assert data.arrays(TABLE[:, 0], TABLE[:, 1], val=(TABLE[:5, 0], TABLE[:5, 1])).split("val").arrays().keys() == {"x", "context"}
    source = data.arrays(TABLE, kinds, label=np.arange(40) % 3, val=0.5)  # the context is one thing, the label another
    assert source.label_names == ("0", "1", "2") and source.train.context is not None and source.train.context.shape == (20, 2)


def test_pairs_and_masks():
    seen = TABLE > -1
    source = data.arrays(np.where(seen, TABLE, np.nan), x0=TABLE[:, :2], mask=seen, val=0.25)
    for split in source.splits().values():
        assert split.x0 is not None and split.x0.shape == (len(split.x), 2) and split.mask is not None and split.mask.shape == split.x.shape
        assert not split.x[~split.mask].any() and (split.x[split.mask] > -1).all()
    val = {"x": TABLE[:3], "x0": TABLE[:3, :2], "mask": seen[:3]}
    assert data.arrays(TABLE, x0=TABLE[:, :2], mask=seen, val=val).split("val").arrays().keys() == {"x", "x0", "mask"}
    grey = data.arrays(GREY[..., 0], x0=GREY, mask=GREY[..., 0] > 9, val=None).train
    assert grey.mask is not None and grey.mask.shape == grey.x.shape == (40, 4, 3, 1)


def test_contexts():
    def context(given):
        found = data.arrays(TABLE, given, val=None).train
        return found.context, found.label

    onehot = np.eye(4)[np.arange(40) % 4]
    for given in (
        np.arange(40) % 4,
        np.array(list("abcd") * 10),
        np.array([b"a", b"b", b"c", b"d"] * 10),
        np.array(list("abcd") * 10, object),
    ):
        found, label = context(given)
        assert found.dtype == np.float32 and label.dtype == np.int32
        np.testing.assert_array_equal(found, onehot)
        np.testing.assert_array_equal(label, np.arange(40) % 4)
    for given in (onehot, onehot.astype(np.int64), onehot.astype(bool)):
        found, label = context(given)
        assert found.dtype == np.float32 and label is None
        np.testing.assert_array_equal(found, onehot)
    found, label = context(TABLE[:, 0].astype(np.float64))
    assert found.shape == (40, 1) and label is None
    assert context(np.arange(40) % 2 == 0)[0].shape == (40, 2)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (3.0, {}, "x is one value; it must be an array [N, ...]"),
        (np.zeros((0, 2)), {}, "x has the shape (0, 2), without a number in it"),
        (np.zeros((5, 0)), {}, "x has the shape (5, 0)"),
        (np.zeros((1, 2)), {}, "x has 1 row; it must have at least 2"),
        ({"x": TABLE}, {}, "x is of type dict; it must be one array"),
        ("table.csv", {}, "x is one value"),
        (["a", "b"], {}, "x holds text, such as 'a'; it must hold numbers"),
        ([[1.0], [1.0, 2.0]], {}, "x is a list whose entries differ in shape"),
        ([[1.0], None], {}, "x is a list whose entries differ in shape"),
        (TABLE.astype(complex), {}, "x holds complex numbers; pass real and imaginary parts"),
        (np.arange(9).astype("M8[D]"), {}, "x holds dates"),
        (np.zeros(9, [("a", "f4")]), {}, "x holds records"),
        (np.array([1.5, None]), {}, "x has 1 missing values, the first in row 1"),
        (np.array([1.5, 2], object), {}, "x holds Python objects (row 0: float); it must be an array of numbers; try .astype(float)"),
        (np.ma.masked_less(TABLE, 0), {}, "missing values; fill them or leave out their rows"),
        (scipy.sparse.csr_array(TABLE), {}, "x is sparse (csr_array); pass x.toarray()"),
        (jax.random.split(jax.random.key(0), 9), {}, "x (PRNGKeyArray) cannot be read as an array: "),
        ((row for row in TABLE), {}, "x is of type generator; it must be one array"),
        (LazyFrame(), {}, "x is a LazyFrame, which has no rows yet; pass x.collect()"),
        (Tensor(TABLE, device="cuda:0"), {}, "x is on the device cuda:0; pass x.cpu()"),
        (Frame(a=TABLE[:, 0], k=["b"] * 40), {}, "x: the column 'k' holds text (row 0: 'b'); leave it out, or encode it as numbers"),
        (np.where(TABLE > 2, np.nan, TABLE), {}, "values that are NaN or infinite; the first is in row "),
        (
            np.pad(TABLE.astype(float), 1, constant_values=1e39),
            {},
            "values that are too large for float32; the first is in row 0, column 0",
        ),
        (np.full((3, 2, 2, 1), np.inf), {}, "x has 12 values that are NaN or infinite; the first is in row 0, entry (0, 0, 0)"),
        (np.pad(TABLE, ((0, 0), (1, 1))), {}, "x has one value (in float32) in column 0, column 4, where a density is infinite"),
        (1.7e9 + np.arange(9.0), {}, "x has one value (in float32) in column 0"),
        (np.arange(9), {}, "x is int64: pass x.astype(float) for continuous data, or levels=9 for grey values 0..8"),
        (-np.arange(9), {}, "x is int64: pass x.astype(float) for continuous data"),
        (np.arange(9, dtype=np.uint16), {}, "x is uint16: pass x.astype(float) for continuous data, or levels=9 for"),
        (np.arange(9), dict(levels=8), "x has integers in 0..8; with levels=8 they must be in 0..7; levels=9 would fit"),
        (np.arange(-1, 5), dict(levels=8), "x has integers in -1..4; with levels=8 they must be in 0..7"),
        (np.arange(-1, 9), dict(levels=8), "x has integers in -1..8; with levels=8 they must be in 0..7"),
        (GREY, dict(levels=17), "with levels=17 they must be in 0..16; levels=256 would fit"),
        (TABLE, dict(levels=17), "levels=17 is for integers, and x is float32; leave it out, or pass integers"),
        *(
            (GREY, dict(levels=levels), f"levels={levels!r} is invalid; it must be a whole number in 2..65536, or None")
            for levels in (0, 1, 2.5)
        ),
        (TABLE, dict(val=1.0), "val=1.0 is invalid; it must be a fraction in [0, 1), x_val, (x_val, context_val) or None"),
        (TABLE, dict(val=True), "val=True is invalid"),
        (TABLE, dict(val=-0.1), "val=-0.1 is invalid"),
        (TABLE, dict(val=float("nan")), "val=nan is invalid"),
        (TABLE[:4], dict(val=0.1), "val=0.1 of 4 rows is 0: it must be at least 1 and leave 2 for training; val=None is no validation"),
        (TABLE[:4], dict(val=0.9), "val=0.9 of 4 rows is 4: it must be at least 1 and leave 2"),
        (TABLE, dict(val=(TABLE,)), "val is a tuple of 1; it must be (x_val, context_val)"),
        (TABLE, dict(val=TABLE[:, :2]), "x_val has examples of shape (2,); those of the training data have (3,)"),
        (TABLE, dict(val="val"), "x_val is one value"),
        (TABLE, dict(val=["a"]), "x_val holds text"),
        (TABLE, dict(val=GREY), "x_val is uint8, and the training data are floats; pass x_val.astype(float)"),
        (GREY, dict(val=TABLE), "x_val is float32, and the training data are integers 0..255"),
        (GREY[:, :, :, :0], {}, "x has the shape (40, 4, 3, 0)"),
        (GREY, dict(val=GREY.astype(int) + 1), "x_val has integers in 1..256; with levels=256 they must be in 0..255"),
        (TABLE, dict(val=np.full((3, 3), np.nan)), "x_val has 9 values that are NaN"),
        (TABLE, dict(val=(TABLE, TABLE)), "val has a context and x has none; give both, val=(x_val, context_val), or none"),
        (TABLE, dict(context=TABLE, val=TABLE), "x has a context and val has none; give both"),
        (
            TABLE,
            dict(context=TABLE, val=(TABLE, TABLE[:, :2])),
            "context_val has 2 numbers per example; the context of the training data has 3",
        ),
        (
            TABLE,
            dict(context=TABLE, val=(TABLE, list("ab") * 20)),
            "context_val holds text, and the context of the training data is 3 numbers",
        ),
        (TABLE, dict(val={"y": TABLE}), "val: the key='y' is unknown"),
        (TABLE, dict(val={"label": [1]}), "val has label and no x; known: x, context, label, x0, mask"),
        (TABLE, dict(x0=TABLE, val=TABLE), 'x has an x0 and val has none; give both, val={"x": x_val, "x0": x0_val}, or none'),
        (TABLE, dict(x0=TABLE, val={"x": TABLE, "x0": TABLE[:, :1]}), "x0_val has examples of shape (1,); those of x0 have (3,)"),
        (TABLE, dict(x0=TABLE[:3]), "x0 has 3 rows for 40 examples"),
        (TABLE, dict(x0=GREY), "x0 is uint8, and the training data are floats; pass x0.astype(float)"),
        (TABLE, dict(mask=TABLE), "mask is float32 of shape (40, 3); it must be bool of the shape of x, (40, 3)"),
        (TABLE, dict(mask=TABLE[:, 0] > 0), "mask is bool of shape (40,); it must be bool of the shape of x, (40, 3)"),
        (TABLE, dict(context=TABLE[:3]), "context has 3 rows for 40 examples"),
        (TABLE, dict(context=GREY), "context is uint8 of shape (40, 4, 3, 1); it must be [N] class labels, or numbers [N] or [N, C]"),
        (TABLE, dict(context=TABLE[:, :0]), "context is float32 of shape (40, 0)"),
        (TABLE, dict(context=5), "context is int64 of shape ()"),
        (TABLE, dict(context=np.full(40, np.nan)), "context has 40 values that are NaN or infinite; the first is in row 0, column 0"),
        (TABLE, dict(context=["a"] * 39 + [None]), "context has 1 missing values, the first in row 39"),
        (
            TABLE,
            dict(context=list("ab") * 20, val=(TABLE[:2], ["c", "a"])),
            "context_val has classes that the training data do not have: 'c'; known: a, b",
        ),
        (
            np.arange(1500.0),
            dict(context=np.arange(1500)),
            "context has 1,500 different class labels; at most 1,000 are read as classes; pass",
        ),
        (TABLE, dict(label=TABLE[:, 0]), "label is float32 of shape (40,); it must be [N] class labels"),
        (TABLE, dict(label=[1, 2]), "label has 2 rows for 40 examples"),
        (
            TABLE,
            dict(label=[1, 2] * 20, val=TABLE),
            "x has a label and val has none; give both, val=(x_val, context_val, label_val), or none",
        ),
    ],
)
def test_wrong_arrays_are_one_clear_line(x, options, message):
    found = line(x, **options)
    assert message in found
    assert line(x, **options, x_name="points").startswith("points") == (found.startswith(("x ", "x:")))


def test_more_examples_of_a_trained_model():
    x = examples(TABLE[:1].astype(np.float64), event=(3,), levels=0)  # one row, whose columns are constant
    np.testing.assert_array_equal(x, TABLE[:1])
    assert examples(GREY[..., 0], event=(4, 3, 1), levels=256).shape == GREY.shape
    assert examples(TABLE[:, 0], event=(1,), levels=0).shape == (40, 1)
    np.testing.assert_array_equal(conditions(["b", "a"], 2, width=2, label_names=("a", "b")), [[0, 1], [1, 0]])
    np.testing.assert_array_equal(conditions([0.5, 1], 2, width=1), [[0.5], [1]])
    np.testing.assert_array_equal(conditions([[0, 1]], 1, width=2, label_names=("a", "b")), [[0, 1]])
    with pytest.raises(UserError, match=r"x is int64, and the training data are floats; pass x\.astype\(float\)"):
        examples(np.arange(9), event=(1,), levels=0)


def test_traced_arrays_have_no_values():
    with pytest.raises(UserError, match="x is an array that jax traces, without values; call this outside of jit"):
        jax.eval_shape(lambda x: data.arrays(x).train.x, TABLE)


def test_a_run_of_a_notebook_has_no_data_for_the_command():
    with pytest.raises(UserError, match=r"trained on arrays of a notebook, .* vaeflow\.load\(DIRECTORY\), run\.evaluate\(x\)"):
        load(kind="arrays")


def test_the_arrays_of_the_caller_are_not_changed():
    for x in (TABLE, GREY, GREY.astype(np.int64)):
        before = x.copy()
        context, val = np.arange(40) % 2, (x[:5], np.arange(5) % 2)
        source = data.arrays(x, context, val=val, levels=None if x.dtype == np.float32 else 256)
        assert x.flags.writeable and len(source.train.x) == 40
        np.testing.assert_array_equal(x, before)
