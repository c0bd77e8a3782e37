"""Images: TFDS sets, folders of pictures, and the memory-mapped cache behind both."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest

from tests.data_toys import REAL_SETS, images, load, save_png, write_tfds
from vaeflow.data import cache, prepared
from vaeflow.errors import UserError


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A data_dir with a small labelled set, a binary one without labels and one that TensorFlow stored."""
    root = tmp_path_factory.mktemp("sets")
    write_tfds(root, "tiny", {"train": images(30, (4, 3, 3)), "test": images(10, (4, 3, 3), 1)}, ("cat", "dog"))
    write_tfds(root, "binary", {"train": images(12, top=2), "validation": images(8, top=2, seed=1)})
    folder = write_tfds(root, "old", {"train": images(4)}) / "dataset_info.json"
    folder.write_text(json.dumps(json.loads(folder.read_text()) | {"fileFormat": "tfrecord"}))
    return root


@pytest.fixture
def tiny(sets, tmp_path):
    return dict(kind="tfds", name="tiny", dir=str(sets), train="train[:20]", val="train[20:]", test="test", cache_dir=str(tmp_path))


def test_tfds_splits_are_views_of_a_cache(tiny, monkeypatch, caplog):
    source = load(**tiny)
    assert source.levels == 256 and source.label_names == ("cat", "dog")
    np.testing.assert_array_equal(source.train.x, images(30, (4, 3, 3))[:20])
    np.testing.assert_array_equal(source.split("val").x, images(30, (4, 3, 3))[20:])
    np.testing.assert_array_equal(source.split("val").label, np.arange(20, 30) % 2)
    assert isinstance(source.train.x, np.memmap) and not source.train.x.flags.writeable
    assert "tensorflow" not in sys.modules and "OpenCV" not in caplog.text
    monkeypatch.setattr(cache, "_write", lambda *_: pytest.fail("decoded twice"))
    np.testing.assert_array_equal(load(**{**tiny, "train": "train[:50%]", "val": ""}).train.x, source.train.x[:15])


def test_tfds_without_labels_binary_and_joined(sets, tmp_path):
    values = dict(kind="tfds", name="binary", dir=str(sets), cache_dir=str(tmp_path))
    source = load(**values, train="train[2:]+validation", binarize="static")  # which binary data need no more
    assert source.levels == 2 and source.label_names is None and source.val is None
    np.testing.assert_array_equal(source.train.x, np.concatenate([images(12, top=2)[2:], images(8, top=2, seed=1)]))
    with pytest.raises(UserError, match="has no labels in the split 'train'"):
        load(**values, train="train", context="label")


def test_tfds_fixed_binarization_belongs_to_the_example(tiny):
    whole = load(**{**tiny, "train": "train", "val": ""}, binarize="static")
    parts = load(**tiny, binarize="static", context="label")
    np.testing.assert_array_equal(whole.train.x[20:], parts.split("val").x)
    assert parts.levels == 2 and set(np.unique(parts.train.x)) == {0, 1} and isinstance(parts.train.x, np.memmap)


def test_a_set_that_was_prepared_again_is_read_again(tmp_path):
    values = dict(kind="tfds", name="s", dir=str(tmp_path), train="train", cache_dir=str(tmp_path / "cache"))
    write_tfds(tmp_path, "s", {"train": images(8)})
    load(**values)
    shutil.rmtree(tmp_path / "s")
    write_tfds(tmp_path, "s", {"train": images(9, seed=3)})
    np.testing.assert_array_equal(load(**values).train.x, images(9, seed=3))
    write_tfds(tmp_path, "s", {"train": images(5, seed=4)}, version="10.0.0")  # the newest, as numbers
    assert len(load(**values).train.x) == 5 and len(load(**{**values, "name": "s/1.0.0"}).train.x) == 9


def test_a_damaged_cache_is_made_again_and_none_is_needed(tiny, tmp_path, monkeypatch, caplog):
    want = np.asarray(load(**tiny).train.x)
    (path,) = tmp_path.rglob("train.npy")
    path.write_bytes(path.read_bytes()[:-10])
    np.testing.assert_array_equal(load(**tiny).train.x, want)
    with pytest.raises(UserError, match=r"data.cache_dir='.*train.npy' cannot be written"):
        load(**{**tiny, "cache_dir": str(path)})
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))  # nobody asked for this folder: go on without
    np.testing.assert_array_equal(load(**{**tiny, "cache_dir": ""}).train.x, want)
    assert "decoding into memory" in caplog.text


def test_a_full_disk_is_one_line_and_leaves_nothing(tiny, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        load(**tiny)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(name="tinny"), r"data.name='tinny' is not prepared in .*; prepared there: binary, old, tiny; prepare it with: python -m exp"),
        (dict(name="old"), "is stored as tfrecord, which needs TensorFlow; prepare it with"),
        (dict(train=""), r"data.train='': .* needs the training split; known: train \(30\), test \(10\)"),
        (dict(val="valid"), r"data.val='valid' is no split of tiny/1.0.0: Unknown split 'valid'.*known: train \(30\), test \(10\)"),
        (dict(train="train[x:]"), r"data.train='train\[x:\]' is no split of tiny/1.0.0"),
        (dict(train="train[20:40]"), r"data.train='train\[20:40\]'.*known: train \(30\)"),
        (dict(train="train[:0]"), r"data.train='train\[:0\]' .*known: train \(30\)"),
        (dict(val="train[15:]"), r"data.train='train\[:20\]' and data.val='train\[15:\]' share examples of 'train'"),
        (dict(label="lable"), r"data.label='lable' is unknown \(did you mean 'label'\?\); known: label"),
        (dict(batch=21), "data.batch=21 is larger than the training split, which has 20 examples"),
    ],
)
def test_wrong_tfds_values_are_one_clear_line(tiny, values, message):
    with pytest.raises(UserError, match=message) as caught:
        load(**{**tiny, **values})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("features.json", lambda found, other: found | {"pythonClassName": other}),
        ("features.json", lambda found, other: {"python_class_name": other, "featuresDict": found["featuresDict"]}),
        ("features.json", lambda found, other: found | {"featuresDict": {"features": {"image": {"pythonClassName": other}}}}),
        ("features.json", lambda found, other: {"type": found["pythonClassName"], "content": {"x": {"type": other, "content": {}}}}),
        ("dataset_info.json", lambda found, other: found | {"features": {"pythonClassName": other}}),
    ],
)
def test_a_class_that_a_set_names_is_not_imported(tmp_path, monkeypatch, name, change):
    """TFDS imports it: of a stranger's folder below the current one, that would run a file there."""
    folder = write_tfds(tmp_path / "sets", "tiny", {"train": images(8)})
    (tmp_path / "sets" / "feature_of_a_stranger.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    path = folder / name
    path.write_text(json.dumps(change(json.loads(path.read_text()), "sets.feature_of_a_stranger.Feature")))
    with pytest.raises(UserError, match=rf"{name}' names the class 'sets.feature_of_a_stranger.Feature', .* it is not imported$"):
        load(kind="tfds", name="tiny", dir=str(tmp_path / "sets"), train="train", cache_dir=str(tmp_path / "cache"))
    assert not (tmp_path / "marker").exists()


@pytest.mark.skipif(not REAL_SETS.is_dir(), reason="the prepared MNIST is not at ../shared/data/tfds")
def test_real_mnist_and_binarized_mnist(tmp_path):
    values = dict(kind="tfds", dir=str(REAL_SETS), train="test[:9000]", val="test[9000:]", cache_dir=str(tmp_path), batch=128)
    source = load(name="mnist", **values)
    assert source.train.x.shape == (9000, 28, 28, 1) and source.levels == 256 and source.label_names == tuple("0123456789")
    assert np.bincount(np.concatenate([np.asarray(s.label) for s in source.splits().values()])).tolist() == [
        *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)  # of the MNIST test set, as published
    ]
    fixed = load(name="binarized_mnist", **values)
    assert fixed.levels == 2 and fixed.train.label is None and 0.12 < fixed.train.x.mean() < 0.14


def make_folder(root, shape=(5, 4, 1), n=12, classes=("b", "a")):
    x = images(n, shape)
    for i, row in enumerate(x):
        save_png(root / classes[i % len(classes)] / f"{i:02d}.png", row)
    return x


@pytest.mark.parametrize("shape", [(5, 4, 1), (5, 4, 3)])
def test_a_folder_of_images(tmp_path, shape):
    x = make_folder(tmp_path / "pics", shape)
    values = dict(kind="image_folder", path=str(tmp_path / "pics"), cache_dir=str(tmp_path / "cache"), context="label")
    source = load(**values, val_fraction=0.25, test_fraction=0.25)
    assert [len(s.x) for s in source.splits().values()] == [6, 3, 3] and source.label_names == ("a", "b") and source.levels == 256
    assert isinstance(source.train.x, np.memmap)
    want = {row.tobytes(): 1 - i % 2 for i, row in enumerate(x)}
    got = {row.tobytes(): int(n) for s in source.splits().values() for row, n in zip(s.x, np.asarray(s.label), strict=True)}
    assert got == want
    binary = load(**values, binarize="threshold")
    assert binary.levels == 2 and set(np.unique(binary.train.x)) == {0, 1}


def test_folders_with_their_own_splits_and_flat_ones(tmp_path):
    for split, n in (("train", 8), ("val", 3)):
        for i, row in enumerate(images(n)):
            save_png(tmp_path / split / f"{i}.png", row)
    source = load(kind="image_folder", path=str(tmp_path), cache_dir=str(tmp_path / "cache"), test_fraction=0.0)
    np.testing.assert_array_equal(source.train.x, images(8))
    assert len(source.split("val").x) == 3 and source.test is None and source.train.label is None


def test_wrong_folders_are_one_clear_line(tmp_path):
    values = dict(kind="image_folder", path=str(tmp_path / "pics"), cache_dir=str(tmp_path / "cache"))
    (tmp_path / "pics" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match=r"has no images \(.png, .jpg, .jpeg\), neither itself nor in its subfolders"):
        load(**values)
    make_folder(tmp_path / "pics")
    save_png(tmp_path / "pics" / "a" / "other.png", images(1, (6, 4, 1))[0])
    with pytest.raises(UserError, match=r"the images differ in size: .* is \(5, 4, 1\), .*other.png' is \(6, 4, 1\)"):
        load(**values)
    (tmp_path / "pics" / "a" / "other.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"other.png' cannot be read"):
        load(**values)
    save_png(tmp_path / "pics" / "other.png", images(1, (5, 4, 1))[0])
    with pytest.raises(UserError, match="both in class folders and outside"):
        load(**values)


def test_preparing_says_what_is_missing(sets, tmp_path, monkeypatch):
    assert prepared.prepare("tiny", str(sets)) == (sets / "tiny" / "1.0.0", True)
    find_spec = prepared.importlib.util.find_spec
    monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install tensorflow importlib_resources; --dataset='mnst' may be misspelt, near: mnist"):
        prepared.prepare("mnst", str(tmp_path))
    monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: find_spec("json"))
    with pytest.raises(UserError, match="--dataset='mnst' is unknown; near: mnist"):
        prepared.prepare("mnst", str(tmp_path))


def test_no_network_is_one_line_within_seconds(monkeypatch):
    for key in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(key, raising=False)
    with pytest.raises(UserError, match=r"no network to download --dataset='s': 127.0.0.1:9 does not answer \(.*refused\)"):
        prepared._check_network(["http://127.0.0.1:9/x.gz"], "s")
    released = prepared.threading.Event()

    def hang(*_, **__):
        released.wait(5)
        raise OSError("too late")

    monkeypatch.setattr(prepared, "PATIENCE", 0.05)
    monkeypatch.setattr(prepared.socket, "create_connection", hang)
    with pytest.raises(UserError, match=r"proxy.invalid:3128 does not answer \(nothing within 0.05 s\)"):
        monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
        prepared._check_network(["https://host.invalid/x.gz"], "s")
    released.set()
