"""data.kind=omniglot: chardata.mat as it is laid out, and what is wrong with other files."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import io

from configs import table_iwae_1_omniglot
from vaeflow import data
from vaeflow.errors import UserError


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x, test = (rng.integers(0, 256, (784, n)) for n in (12, 5))
    target = np.eye(50)[:, [49, *range(11)]]
    return {"data": x / 255, "testdata": test / 255, "target": target, "testtarget": np.eye(50)[:, :5]}


def load(tmp_path, arrays, **changes):
    io.savemat(tmp_path / "chardata.mat", arrays)
    config = table_iwae_1_omniglot.get_config("vae_1_1,cpu")
    config.data.update(path=str(tmp_path / "chardata.mat"), batch=2, **changes)
    return data.load(config.data, seed=0)


def test_images_are_columns_of_columns(tmp_path, arrays):
    found = load(tmp_path, arrays)
    assert found.train.x.shape == (12, 28, 28, 1) and found.test is not None and len(found.test.x) == 5 and found.val is None
    assert found.train.x.dtype == np.uint8 and found.levels == 256
    row, column = 3, 20
    assert found.train.x[7, row, column, 0] == round(arrays["data"][column * 28 + row, 7] * 255)
    assert found.train.label is not None and found.train.label[0] == 49


def test_bytes_and_a_validation_split(tmp_path, arrays):
    whole = load(tmp_path, arrays)
    found = load(tmp_path, arrays | {"data": np.rint(arrays["data"] * 255)}, val_fraction=0.25)
    assert found.val is not None and (len(found.train.x), len(found.val.x)) == (9, 3)
    every = np.concatenate([found.train.x, found.val.x]).reshape(12, -1)
    assert sorted(map(bytes, every)) == sorted(map(bytes, whole.train.x.reshape(12, -1)))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"data": np.zeros((700, 3))}, "it must be [784, N]"),
        ({"data": np.full((784, 12), -1.0)}, "they must be in [0, 1] or 0..255"),
        ({"testdata": None}, "has no array 'testdata'; it has data, target, testtarget"),
    ],
)
def test_other_files_are_one_line(tmp_path, arrays, change, said):
    with pytest.raises(UserError) as error:
        load(tmp_path, {k: v for k, v in (arrays | change).items() if v is not None})
    assert said in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_file_that_is_cut_off_is_one_line(tmp_path, arrays, share):
    io.savemat(whole := tmp_path / "whole.mat", arrays, do_compression=True)
    (tmp_path / "cut.mat").write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    config = table_iwae_1_omniglot.get_config("vae_1_1,cpu")
    config.data.path = str(tmp_path / "cut.mat")
    with pytest.raises(UserError, match="cannot be read as a"):
        data.load(config.data, seed=0)


def test_a_missing_file_says_which_one_it_is():
    config = table_iwae_1_omniglot.get_config("vae_1_1,cpu")
    with pytest.raises(UserError, match="needs the file chardata"):
        data.load(config.data, seed=0)
    config.data.path = "/nowhere/chardata.mat"
    with pytest.raises(UserError, match="is no file; it must be chardata"):
        data.load(config.data, seed=0)
