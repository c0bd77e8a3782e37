"""Pairs and masks: two sources as one, arrays of an npz, and what is refused."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from tests.commands import refusal
from tests.data_toys import images, load
from vaeflow import data
from vaeflow.data.source import Split
from vaeflow.errors import UserError
from vaeflow.evaluation.map_split import gather, map_split
from vaeflow.training import stacked

MOONS, EIGHT = dict(kind="density", name="moons"), dict(kind="density", name="8gaussians")


def points(x=MOONS, x0=EIGHT, **values: Any) -> data.Source:
    return load(**dict(kind="pair", size=50, x=x, x0=x0) | values)


def save(path, **arrays: np.ndarray) -> dict[str, Any]:
    np.savez(path, **arrays)
    return dict(kind="npz", path=str(path))


def test_a_pair_is_its_two_sources():
    source = points(context="label")
    one, other = load(size=50, context="label", **MOONS), load(size=50, **EIGHT)
    assert list(source.splits()) == ["train", "val", "test"] and source.label_names == ("0", "1") and source.levels == 0
    for name, split in source.splits().items():
        np.testing.assert_array_equal(split.x, one.split(name).x)
        np.testing.assert_array_equal(split.x0, other.split(name).x)
        np.testing.assert_array_equal(split.context, one.split(name).context)
        np.testing.assert_array_equal(split.label, one.split(name).label)
    plain = points()
    assert plain.density is not None and np.isfinite(plain.density(plain.train.x)).all()


def test_independent_sources_of_different_lengths():
    x, x0 = dict(MOONS, size=1500, val_fraction=0.8), dict(EIGHT, size=40)
    source = points(x, x0, pairing="shuffle")
    held, other = load(**x), load(**x0)
    assert [len(split.x) for split in source.splits().values()] == [1500, 1200, 1000]
    np.testing.assert_array_equal(source.train.x, held.train.x)
    np.testing.assert_array_equal(source.train.x0, other.train.x[np.arange(1500) % 40])
    np.testing.assert_array_equal(source.split("val").x0, other.split("val").x[np.arange(1200) % 1000])
    source = points(x0, x, pairing="shuffle")  # examples of x are repeated for training alone
    np.testing.assert_array_equal(source.train.x, other.train.x[np.arange(1500) % 40])
    np.testing.assert_array_equal(source.train.label, np.asarray(other.train.label)[np.arange(1500) % 40])
    np.testing.assert_array_equal(source.train.x0, held.train.x)
    np.testing.assert_array_equal(source.split("val").x0, held.split("val").x[:1000])
    assert len(source.split("val").x) == 1000


def test_shapes_may_differ_and_files_stay_aligned(tmp_path):
    """Two files of one length are carved alike."""
    row = np.arange(40, dtype=np.float32)
    one, other = save(tmp_path / "a.npz", x=row[:, None]), save(tmp_path / "b.npz", x=np.tile(row[:, None, None], (1, 2, 3)))
    for split in points(one, other, size=0).splits().values():
        assert split.x0 is not None and split.x0.shape[1:] == (2, 3)
        np.testing.assert_array_equal(split.x0[:, 1, 2], split.x[:, 0])


def test_x0_is_binarized_like_x_with_draws_of_its_own(tmp_path):
    grey = save(tmp_path / "a.npz", x=np.full((200, 50), 128, np.uint8))
    source = points(grey, grey, size=0, binarize="static")
    x, x0 = np.asarray(source.train.x), np.asarray(source.train.x0)
    assert source.levels == 2 and set(np.unique(x0)) == {0, 1} and abs((x == x0).mean() - 0.5) < 0.03
    source = points(dict(kind="digits"), dict(kind="digits"), size=0, binarize="threshold")
    np.testing.assert_array_equal(source.train.x0, load(kind="digits", binarize="threshold").train.x)


def test_which_sources_follow_the_seed():
    """What decides whether runs of different seeds share their data."""
    digits = dict(kind="digits")
    for source, seeded in ((points(), True), (points(digits, digits, size=0), False), (load(kind="density", name="rings", size=9), True)):
        assert source.seeded is seeded
        xs: Any = [SimpleNamespace(source=source, config=SimpleNamespace(seed=seed)) for seed in (0, 1)]
        assert stacked.one_source(xs) is not seeded and stacked.one_source(xs[:1])


def test_npz_with_x0_and_a_mask(tmp_path):
    """Carved by the same rows, with or without splits of its own; x0 and the mask take the form of the examples."""
    x, row = images(30, (4, 3)), np.arange(30)
    mask = np.broadcast_to(row[:, None, None] % 2 == 0, x.shape)
    x[:, 0, 0] = row
    values = save(tmp_path / "a.npz", x=x, x0=255 - x, mask=mask)
    for source in (load(**values, val_fraction=0.2), load(**values, train="x[:60%]", val="x[60%:80%]", test="x[80%:]")):
        assert source.levels == 256 and [len(split.x) for split in source.splits().values()][1] == 6
        for split in source.splits().values():
            assert split.x0 is not None and split.mask is not None and split.mask.dtype == bool
            assert split.x.shape[1:] == split.x0.shape[1:] == split.mask.shape[1:] == (4, 3, 1)
            np.testing.assert_array_equal(split.x0, 255 - split.x)
            np.testing.assert_array_equal(split.mask[:, 2, 1, 0], split.x[:, 0, 0, 0] % 2 == 0)
    y = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    source = load(**save(tmp_path / "b.npz", train=y[:20], val=y[20:], train_x0=-y[:20], val_x0=-y[20:]), test_fraction=0.2)
    for split in source.splits().values():
        np.testing.assert_array_equal(split.x0, -split.x)
    assert load(**save(tmp_path / "c.npz", x0=y) | dict(name="x0")).train.x0 is None


Y, GREY = np.zeros((20, 2), np.float32), np.zeros((20, 2), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "values", "message"),
    [
        (dict(x=Y, x0=Y[:9]), {}, "'x' has 20 examples but 9 of 'x0'"),
        (dict(x=Y, x0=Y + np.nan), {}, "values that are NaN or infinite in x0; the first is in example 0$"),
        (dict(x=Y, x0=GREY), {}, "train x0 has integers and train has floats; use one type"),
        (dict(x=GREY, x0=GREY + 20), dict(levels=17), "integers must be in 0..16, these are in 0..20"),
        (dict(train=Y, val=Y, train_x0=Y), {}, "'val' has another x0 than the split 'train': none, there the shape"),
        (
            dict(train=Y, val=Y, train_x0=Y, val_x0=Y[:, :1]),
            {},
            r"another x0 than the split 'train': the shape \(1,\), there",
        ),
        (dict(x=Y, mask=Y), {}, r"has a mask that is float32 of shape \(16, 2\); it must be bool of the examples' shape \(16, 2\)"),
        (dict(x=Y, mask=Y[:, :1] > 0), {}, r"has a mask that is bool of shape \(16, 1\)"),
        (dict(x=Y + np.nan, mask=Y > 0), {}, "NaN or infinite in x; the first is in example 0; fill missing entries with any number"),
        (dict(x=GREY, x0=GREY), dict(levels=3, binarize="dynamic"), "data.binarize='dynamic' is invalid with x0"),
        (dict(x=images(20), x0=images(20)), dict(augment=("flip",)), r"data.augment=\('flip',\) is invalid with x0"),
        (dict(x=images(20), mask=images(20) > 9), dict(augment=("flip",)), r"data.augment=\('flip',\) is invalid with mask"),
        (dict(x=Y), dict(pairing="shuffle"), "data.pairing='shuffle' needs x0, and data.kind='npz' has none here; set it to 'rows'"),
    ],
)
def test_wrong_arrays_are_one_clear_line(tmp_path, arrays, values, message):
    with pytest.raises(UserError, match=message) as caught:
        load(**save(tmp_path / "a.npz", **arrays), **values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(x={}), "data.x.kind is missing: data.kind='pair' needs the kinds of its two sources"),
        (dict(x0=dict(name="rings")), "data.x0.kind is missing"),
        (dict(x0=dict(kind="densty")), r"data.x0.kind='densty' is unknown \(did you mean 'density'\?\).*--import=FILE"),
        (dict(x0=dict(kind="pair")), "data.x0.kind='pair' is invalid: a pair has no pair inside"),
        (dict(x=dict(MOONS, nam=3)), r"data.x: the key='nam' is unknown \(did you mean 'name'"),
        (dict(x=dict(MOONS, batch=3)), "data.x.batch is invalid: 'batch' is of the pair; set data.batch. Known here: kind, name"),
        (dict(x=dict(MOONS, x0=EIGHT)), "data.x.x0 is invalid: 'x0' is of the pair"),
        (dict(x0=dict(EIGHT, size=-1)), "data.x0.size=-1 is invalid; it must be >= 0"),
        (dict(x0=dict(EIGHT, name="moon")), r"data.x0: data.name='moon' is unknown \(did you mean 'moons'"),
        (dict(x0=dict(EIGHT, val_fraction=0.0)), "data.x has the splits train, val, test, data.x0 has train, test; a pair needs the same"),
        (
            dict(x0=dict(kind="digits"), pairing="shuffle"),
            r"data.x has 0 levels and data.x0 has 17 \(0: continuous\)",
        ),
        (
            dict(x0=dict(EIGHT, size=9)),
            "data.pairing='rows' needs as many x0 as x, and the split 'train' has 50 x and 9 x0; set",
        ),
        (dict(pairing="random"), "data.pairing='random' is unknown.*rows, shuffle"),
        (dict(kind="density", name="moons"), "data.x is read by data.kind='pair' alone, and data.kind='density'"),
    ],
)
def test_a_wrong_pair_is_one_clear_line(values, message):
    with pytest.raises(UserError, match=message) as caught:
        points(**values)
    assert "\n" not in str(caught.value)


def test_a_source_of_a_pair_has_no_x0_and_no_mask_of_its_own(tmp_path):
    paired = save(tmp_path / "a.npz", x=Y, x0=Y)
    with pytest.raises(UserError, match=r"data\.x: the source has x0 itself"):
        points(paired, MOONS, size=0)
    masked = save(tmp_path / "b.npz", x=Y, mask=Y > 0)
    with pytest.raises(UserError, match=r"data\.x0: the source has a mask, which only data\.x may have"):
        points(masked, masked, size=0)
    assert points(masked, save(tmp_path / "c.npz", x=Y), size=0).train.mask is not None


def test_data_json_notices_another_x0():
    source = points()
    found = data.summary(source)
    assert found["pairs"] is True and list(found["moments"])[:2] == ["train", "val"]
    kept = json.loads(json.dumps(found["moments"]))
    assert data.differs(kept, source) == ""
    assert data.differs(kept, points(x0=dict(kind="density", name="rings"))) == "train x0"
    assert data.differs(kept, load(size=50, **MOONS)) == "train x0"
    old = data.summary(load(size=50, **MOONS))  # of a run that did not read x0
    assert "pairs" not in old and data.differs(old["moments"], source) == ""


def test_all_leaves_reach_a_function_of_one_example():
    split = Split(np.arange(7.0)[:, None], x0=np.arange(7.0)[:, None] ** 2, mask=np.arange(7)[:, None] % 2 == 0)
    run = map_split(lambda p, key, batch: {name: a[0] for name, a in batch.items()}, split, jax.random.key(0), batch=3)
    found = gather(run({}))
    for name, array in split.arrays().items():
        np.testing.assert_array_equal(found[name], array)


def test_a_model_that_does_not_read_a_mask_refuses_the_data(tmp_path):
    values = save(tmp_path / "a.npz", x=Y + np.arange(20)[:, None], mask=Y == 0)
    words = [f"--config.data.{key}={value}" for key, value in values.items()]
    line = refusal(
        "train",
        "--config=configs/densities.py",
        *words,
        "--config.data.name=",
        "--config.data.size=0",
        "--config.data.batch=8",
        f"--workdir={tmp_path / 'run'}",
    )
    assert "the data have a mask of missing entries, and this model does not read it" in line
