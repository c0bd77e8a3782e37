"""Sources that need no files: digits and densities; what `load` checks; labels, contexts, binarization."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tests.data_toys import load, section
from vaeflow import data
from vaeflow.data import densities
from vaeflow.data.binarize import ROWS, binarize_batch, binarized
from vaeflow.data.source import carve, encode_labels, parse
from vaeflow.errors import UserError


def test_digits_are_split_once_and_for_all():
    source, again = load(kind="digits"), load(seed=5, kind="digits")
    assert [len(s.x) for s in source.splits().values()] == [1297, 200, 300]
    assert source.levels == 17 and source.train.x.shape[1:] == (8, 8, 1) and source.train.x.dtype == np.uint8
    assert max(s.x.max() for s in source.splits().values()) == 16
    for name, split in source.splits().items():
        np.testing.assert_array_equal(split.x, again.split(name).x)
    images = np.concatenate([s.x for s in source.splits().values()]).reshape(1797, -1)
    from sklearn.datasets import load_digits

    np.testing.assert_array_equal(np.sort(images.sum(1)), np.sort(load_digits(return_X_y=True)[0].sum(1)))  # each image in one split


@pytest.mark.parametrize("name", sorted(densities.DENSITIES))
def test_a_density_integrates_to_one_and_is_that_of_its_samples(name):
    density = densities.DENSITIES[name]()
    step = 0.1  # the smallest noise: the midpoint sum over a Gaussian of that width is right to 1e-8
    side = np.arange(-6 + step / 2, 6, step)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    p = np.exp(densities.log_prob(density, grid)) * step**2
    assert abs(p.sum() - 1) < 1e-6
    x = densities.draw(density, 10_000, (1,)).x.astype(np.float64)
    assert np.abs(x).max() < 6

    def moments(x):
        return np.stack([x[:, 0], x[:, 1], x[:, 0] ** 2, x[:, 1] ** 2, np.cos(2 * x[:, 0] + x[:, 1]), np.sin(3 * x[:, 1] - x[:, 0])])

    found, want = moments(x), moments(grid) @ p
    assert (np.abs(found.mean(1) - want) < 4.5 * found.std(1) / np.sqrt(len(x)) + 1e-6).all()
    mean_log_p = densities.log_prob(density, x)
    entropy = -(p * np.log(np.where(p > 0, p / step**2, 1))).sum()
    assert abs(mean_log_p.mean() + entropy) < 4.5 * mean_log_p.std() / np.sqrt(len(x)) + 1e-6


def test_only_the_training_points_of_a_density_follow_the_seed():
    one, two = (load(seed=s, kind="density", name="moons", size=3000) for s in (0, 1))
    assert one.train.x.dtype == np.float32 and one.train.x.shape == (3000, 2) and one.levels == 0
    assert not np.array_equal(one.train.x, two.train.x)
    np.testing.assert_array_equal(one.split("test").x, two.split("test").x)
    assert not np.array_equal(one.split("val").x, one.split("test").x)
    assert one.density is not None and np.isfinite(one.density(one.train.x)).all()
    assert load(kind="density", name="moons", size=100, context="label").density is None
    assert load(kind="density", name="moons", size=100, val_fraction=0.0).val is None


def test_the_context_is_the_label():
    source = load(kind="digits", context="label")
    for split in source.splits().values():
        assert split.context is not None and split.label is not None and split.context.shape == (len(split.x), 10)
        np.testing.assert_array_equal(split.context.argmax(1), split.label)
        np.testing.assert_array_equal(split.context.sum(1), 1)
    assert load(kind="digits").train.context is None


@pytest.mark.parametrize("method", ["threshold", "static"])
def test_fixed_binarization_gives_binary_data(method):
    grey, source = load(kind="digits"), load(seed=3, kind="digits", binarize=method)
    assert source.levels == 2 and source.train.x.dtype == np.uint8 and set(np.unique(source.train.x)) == {0, 1}
    np.testing.assert_array_equal(source.train.x, load(seed=4, kind="digits", binarize=method).train.x)
    assert (source.train.x[grey.train.x == 16] == 1).all() and (source.train.x[grey.train.x == 0] == 0).all()
    if method == "threshold":
        np.testing.assert_array_equal(source.train.x, grey.train.x > 8.4)
    else:
        middle = source.train.x[grey.train.x == 8]
        assert abs(middle.mean() - 0.5) < 5 * 0.5 / np.sqrt(middle.size)
    assert load(kind="digits", binarize="dynamic").levels == 17


def test_a_static_draw_depends_on_the_row_alone():
    x = np.full((2 * ROWS + 10, 3), 128, np.uint8)
    whole = binarized(x, 256, "static", "train")
    np.testing.assert_array_equal(whole[ROWS:], binarized(x[ROWS:], 256, "static", "train", start=ROWS))
    assert not np.array_equal(whole[:ROWS], whole[ROWS : 2 * ROWS])
    assert not np.array_equal(whole, binarized(x, 256, "static", "test"))


def test_a_dynamic_draw_depends_on_key_and_slot():
    x = np.tile(np.array([0, 4, 16], np.uint8), (64, 50, 1))
    draw = jax.jit(binarize_batch, static_argnums=2)
    key, slots = jax.random.key(0), np.arange(64)
    b = np.asarray(draw(key, x, 17, slots))
    assert b.dtype == np.uint8 and set(np.unique(b)) == {0, 1}
    assert (b[..., 0] == 0).all() and (b[..., 2] == 1).all() and abs(b[..., 1].mean() - 0.25) < 0.04
    np.testing.assert_array_equal(b[32:], draw(key, x[32:], 17, slots[32:]))  # another device, another feed
    assert not np.array_equal(b, draw(jax.random.key(1), x, 17, slots)) and not np.array_equal(b[0], b[1])


def test_splits_by_fraction_are_disjoint_and_fixed():
    config = parse(section(kind="npz", val_fraction=0.2, test_fraction=0.3))
    parts = carve(10, config)
    assert [len(p) for p in parts.values()] == [5, 2, 3]
    assert sorted(np.concatenate(list(parts.values()))) == list(range(10))
    assert list(carve(10, config, have=("test",))) == ["train", "val"]


def test_labels_are_numbered_in_order_over_all_splits():
    (one, two), names = encode_labels([np.array(["10", "9"]), np.array(["2"])], "k")
    assert names == ("2", "9", "10") and one.tolist() == [2, 1] and two.tolist() == [0] and one.dtype == np.int32
    (one,), names = encode_labels([np.array(["cat", "ant", "cat"])], "k")
    assert names == ("ant", "cat") and one.tolist() == [1, 0, 1]
    with pytest.raises(UserError, match=r"whole numbers or text; one is 0\.5"):
        encode_labels([np.array([0.5, 1.0])], "k")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(kind="digit"), r"data.kind='digit' is unknown \(did you mean 'digits'\?\); known: arrays, csv, density, digits"),
        (dict(kind="digits", batch=0), r"data.batch=0 is invalid; it must be >= 1"),
        (dict(kind="digits", batch=2000), r"data.batch=2000 is larger than the training split, which has 1297 examples"),
        (dict(kind="digits", place="gpu"), r"data.place='gpu' is unknown.*auto, device, stream"),
        (dict(kind="digits", context="labels"), r"data.context='labels' is unknown \(did you mean 'label'"),
        (dict(kind="digits", context="array"), r"data.context='array': data.kind='digits' has no array named context"),
        (dict(kind="digits", val_fraction=1.0), r"data.val_fraction=1.0 is invalid"),
        (dict(kind="density", size=10), r"data.name='': data.kind='density' needs the density's name: 25gaussians"),
        (dict(kind="density", name="moon", size=10), r"data.name='moon' is unknown \(did you mean 'moons'\?\); known: 25gaussians"),
        (dict(kind="density", name="moons"), r"data.size=0: data.kind='density' needs the number of training examples"),
        (dict(kind="density", name="moons", size=9, binarize="static"), r"data.binarize='static' needs grey values"),
        (dict(kind="npz"), r"data.path='': data.kind='npz' needs an .npz file"),
        (dict(kind="npz", path="no/where.npz"), r"data.path='no/where.npz' does not exist"),
        (dict(kind="csv", path="no/where.csv"), r"data.path='no/where.csv' does not exist"),
        (dict(kind="image_folder", path="no/where"), r"data.path='no/where' is not a folder"),
        (dict(kind="tfds", dir="data"), r"data.name='': data.kind='tfds' needs the dataset's name"),
        (dict(kind="tfds", name="mnist"), r"data.dir='': data.kind='tfds' needs the data_dir"),
        (dict(kind="tfds", name="mnist", dir="no/where"), r"data.dir='no/where' does not exist; prepare it with: python -m experiments"),
    ],
)
def test_a_wrong_value_is_one_clear_line(values, message):
    with pytest.raises(UserError, match=message) as caught:
        load(**values)
    assert "\n" not in str(caught.value)


def test_a_mistyped_key_and_a_split_that_is_not_there():
    with pytest.raises(UserError, match=r"data: the key='bach' is unknown \(did you mean 'batch'"):
        data.load({**section(kind="digits"), "bach": 3}, 0)
    with pytest.raises(UserError, match=r"split='val' is unknown; known: test, train"):
        load(kind="density", name="rings", size=10, val_fraction=0.0).split("val")
