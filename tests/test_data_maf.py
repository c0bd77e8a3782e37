"""The tables of the MAF paper on small files of the same layout: what is left out, splits, noise, standardisation, errors.

The expected arrays are computed here a second time, row by row and loop by loop where the source takes a short cut.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.data_toys import gas, load
from vaeflow.errors import UserError

FILES = {
    "power": "power/data.npy",
    "gas": "gas/ethylene_CO.pickle",
    "hepmass": "hepmass/1000_train.csv",
    "miniboone": "miniboone/data.npy",
    "bsds300": "BSDS300/BSDS300.hdf5",
}


def power(root, rows=300):
    path = root / "power" / "data.npy"
    path.parent.mkdir()
    data = np.random.default_rng(1).normal(size=(rows, 8)) * 10.0 ** np.arange(-3, 5)
    np.save(path, data)
    return data


def hepmass(root, rows=300):
    """Every second row is signal. Of 27 features the first six repeat their smallest value six times, the seventh five times, the
    eighth its largest value many times: 21 stay. The file for testing has one column more."""
    rng = np.random.default_rng(3)
    found = []
    (root / "hepmass").mkdir()
    for name, n in (("train", rows), ("test", rows // 2)):
        label, x = np.arange(n) % 2, rng.normal(size=(n, 27)).round(12) + 3
        for column, times in [(c, 6) for c in range(6)] + [(6, 5)]:
            x[1 : 2 * times : 2, column] = -9.0
        x[31:90:2, 7] = 9.0
        header = ["# label", *(f"f{i}" for i in range(27)), *(["mass"] if name == "test" else [])]
        lines = [",".join(header)]
        lines += [",".join([f"{label[i]:.1f}", *map(repr, map(float, x[i])), *(["1000"] if name == "test" else [])]) for i in range(n)]
        (root / "hepmass" / f"1000_{name}.csv").write_text("\n".join(lines) + "\n")
        found.append(x[label == 1])
    return found


def miniboone(root, rows=300, columns=43):
    (root / "miniboone").mkdir(exist_ok=True)
    data = np.random.default_rng(4).normal(size=(rows, columns)) * 7 + 100
    np.save(root / "miniboone" / "data.npy", data)
    return data


def bsds300(root, columns=63):
    h5py = pytest.importorskip("h5py")
    (root / "BSDS300").mkdir()
    rng = np.random.default_rng(5)
    data = {name: rng.normal(size=(n, columns)) * 0.1 for name, n in (("train", 40), ("validation", 20), ("test", 30))}
    with h5py.File(root / "BSDS300" / "BSDS300.hdf5", "w") as file:
        for name, x in data.items():
            file[name] = x.astype(np.float32)
    return data


MAKE = {"power": power, "gas": gas, "hepmass": hepmass, "miniboone": miniboone, "bsds300": bsds300}


def read(root, name, **values):
    return load(kind="maf", name=name, path=str(root), **values)


def fails(match, root, name):
    with pytest.raises(UserError, match=match):
        read(root, name)


def arrays(source):
    return [split.x for split in source.splits().values()]


def same(source, expected):
    assert source.levels == 0 and list(source.splits()) == ["train", "val", "test"]
    for split, x in zip(source.splits().values(), expected, strict=True):
        assert split.x.dtype == np.float32 and split.label is None and split.context is None
        np.testing.assert_allclose(split.x, np.asarray(x), rtol=1e-6, atol=1e-6)


def test_power_is_shuffled_and_made_noisy_by_the_published_seed(tmp_path):
    data = power(tmp_path)
    rng = np.random.RandomState(42)
    rng.shuffle(data)  # the rows themselves, as the published code does
    data = np.delete(np.delete(data, 3, axis=1), 1, axis=1)
    voltage, active, meters = 0.01 * rng.rand(300, 1), 0.001 * rng.rand(300, 1), rng.rand(300, 3)
    data = data + np.hstack((active, voltage, meters, np.zeros((300, 1))))
    seen = data[:270]
    data = (data - seen.mean(axis=0)) / seen.std(axis=0)
    same(read(tmp_path, "power"), (data[:243], data[243:270], data[270:]))


def test_hepmass_keeps_signal_and_features_whose_smallest_value_is_rare(tmp_path):
    train, test = hepmass(tmp_path)
    assert len(train) == 150 and len(test) == 75
    mean, std = train.mean(axis=0), train.std(axis=0, ddof=1)
    train, test = ((train - mean) / std)[:, 6:], ((test - mean) / std)[:, 6:]
    same(read(tmp_path, "hepmass"), (train[:135], train[135:], test))


def test_miniboone_is_standardised_by_train_and_val(tmp_path):
    data = miniboone(tmp_path, rows=305)  # 30 for testing, 27 of 275 for validation
    source = read(tmp_path, "miniboone")
    seen = data[:275]
    data = (data - seen.mean(axis=0)) / seen.std(axis=0)
    same(source, (data[:248], data[248:275], data[275:]))
    seen = np.concatenate(arrays(source)[:2]).astype(np.float64)
    np.testing.assert_allclose([seen.mean(axis=0), seen.std(axis=0)], [np.zeros(43), np.ones(43)], atol=1e-6)
    assert abs(arrays(source)[0].mean(axis=0)).max() > 1e-3  # not by train alone


def test_bsds300_is_as_it_is(tmp_path):
    data = bsds300(tmp_path)
    source = read(tmp_path, "bsds300")
    same(source, data.values())
    assert np.array_equal(source.train.x, data["train"].astype(np.float32))


@pytest.mark.parametrize(("name", "columns"), list(zip(FILES, (6, 8, 21, 43, 63), strict=True)))
def test_the_runs_seed_changes_nothing(tmp_path, name, columns):
    MAKE[name](tmp_path)
    first, second = (arrays(read(tmp_path, name, seed=seed)) for seed in (0, 7))
    assert [x.shape[1] for x in first] == [columns] * 3
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["miniboon", ""])
def test_a_name_that_is_none(tmp_path, name):
    fails(f"data.name='{name}' is unknown.*; known: bsds300, gas, hepmass, miniboone, power", tmp_path, name)


@pytest.mark.parametrize(("name", "file"), list(FILES.items()))
def test_a_file_that_is_not_there(tmp_path, name, file):
    fails(f"data.path='{tmp_path}' has no file {file}; .*Zenodo record 1161203", tmp_path, name)
    (tmp_path / "data").mkdir()
    MAKE[name](tmp_path / "data")
    fails(rf"has no file {file}; did you mean data\.path='{tmp_path}/data'\?", tmp_path, name)


def test_a_folder_that_is_not_there(tmp_path):
    fails("data.path='/no/where' is not a folder; data.kind='maf' needs .*Zenodo record 1161203", "/no/where", "power")
    fails("data.path='': data.kind='maf' needs the folder", "", "power")


@pytest.mark.parametrize(("name", "package"), [("hepmass", "pandas"), ("bsds300", "h5py")])
def test_a_package_that_is_missing(tmp_path, monkeypatch, name, package):
    extra = {"pandas": "tables", "h5py": "hdf5"}[package]
    MAKE[name](tmp_path)
    monkeypatch.setitem(sys.modules, package, None)  # its import then fails
    fails(rf'data.name=.{name}. needs the package {package}, which is not installed: pip install -e "\.\[{extra}\]"$', tmp_path, name)


def test_other_numbers_of_columns_and_too_few_rows(tmp_path):
    miniboone(tmp_path, rows=10)
    fails("the split 'val' is empty", tmp_path, "miniboone")
    miniboone(tmp_path, columns=50)
    fails(r"miniboone/data.npy' must hold numbers \[N, 43\]; it holds float64 of shape \(300, 50\)", tmp_path, "miniboone")
    bsds300(tmp_path, columns=64)
    fails("train of data.name='bsds300' has 64 columns; it must have 63 columns", tmp_path, "bsds300")
    gas(tmp_path, without=("R2",))
    fails("train of data.name='gas' has 7 columns; it must have 8 columns", tmp_path, "gas")


def test_files_that_hold_something_else(tmp_path):
    gas(tmp_path, without=("Eth",))
    fails("is no table with the columns Meth, Eth, Time: Eth not there", tmp_path, "gas")
    (tmp_path / "power").mkdir()
    (tmp_path / "power" / "data.npy").write_bytes(b"cut off")
    fails("power/data.npy' cannot be read as npy", tmp_path, "power")
    bsds300(tmp_path)
    (tmp_path / "BSDS300" / "BSDS300.hdf5").write_bytes(b"cut off")
    fails("BSDS300.hdf5' cannot be read as hdf5", tmp_path, "bsds300")
    hepmass(tmp_path)
    path = tmp_path / "hepmass" / "1000_test.csv"
    path.write_text(path.read_text().replace("f26,mass", "f27,mass", 1))
    fails(r"the files' columns differ: 1000_train.csv f0, .* f26; 1000_test.csv f0, .* f27 \(without its last\)", tmp_path, "hepmass")
    (tmp_path / "hepmass" / "1000_train.csv").write_text("# label,f0\n1,ant\n")
    fails("1000_train.csv' has columns that are not numbers: f0", tmp_path, "hepmass")
