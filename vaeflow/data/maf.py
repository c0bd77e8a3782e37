"""The five tables of the MAF paper (Papamakarios, Pavlakou, Murray 2017, section 4.2), prepared as its published code prepares them.

`data.path` is the folder `data` of the archive that its authors published, Zenodo record 1161203:

    name        file                                     columns    train       val      test
    power       power/data.npy                                 6  1,659,917  184,435  204,928
    gas         gas/ethylene_CO.npz                            8    852,174   94,685  105,206
    hepmass     hepmass/1000_train.csv, 1000_test.csv         21    315,123   35,013  174,987
    miniboone   miniboone/data.npy                            43     29,556    3,284    3,648
    bsds300     BSDS300/BSDS300.hdf5                          63  1,000,000   50,000  250,000

The archive has gas as a pickle, gas/ethylene_CO.pickle. A pickle can run code, so it is not read here; convert it once:

    python -m experiments.prepare --gas=FOLDER/gas/ethylene_CO.pickle

Unless the files have splits of their own, the last tenth is for testing, then the last tenth of what is left for validation.

    power       rows shuffled, uniform noise as wide as the meters' resolution added, both by seed 42; standardised by train and val
    gas         gases and time left out, then every column that correlates above 0.98 with a later one; standardised by all rows
    hepmass     signal only; standardised by 1000_train.csv; then columns left out whose smallest value comes more than five times
    miniboone   standardised by train and val
    bsds300     8 x 8 patches without their mean and last pixel, as they are

Densities are those of these columns, so they compare with published ones only if every step is the same. The order of power's draws and
"the smallest value" in hepmass (the most frequent one was meant) are what that code does. Everything is in float64 up to the last step.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vaeflow.data import gas
from vaeflow.data.packages import package
from vaeflow.data.source import SPLITS, DataConfig, Source, Split, require, source
from vaeflow.errors import UserError, unknown

Splits = tuple[np.ndarray, np.ndarray, np.ndarray]  # train, val, test [N, columns]
ARCHIVE = "the folder `data` of the archive of the MAF paper's data (Zenodo record 1161203, doi 10.5281/zenodo.1161203)"
_SEED = 42  # of power's order and noise


class TabularSet(NamedTuple):
    """columns   after the preparation
    read      the folder -> its splits
    """

    columns: int
    read: Callable[[Path], Splits]


def load(config: DataConfig, seed: int) -> Source:
    """data.kind=maf: x [N, columns] float32."""
    del seed  # the preparation has a seed of its own
    if config.name not in TABLES:
        raise unknown("data.name", config.name, TABLES)
    columns, read = TABLES[config.name]
    root = Path(require(config, "path", ARCHIVE)).expanduser()
    if not root.is_dir():
        raise UserError(f"data.path={config.path!r} is not a folder; data.kind='maf' needs {ARCHIVE}")
    parts = dict(zip(SPLITS, read(root), strict=True))
    for name, x in parts.items():
        if x.shape[1:] != (columns,):
            found = f"{x.shape[1]} columns" if x.ndim == 2 else f"the shape {x.shape}"
            raise UserError(f"data.path={config.path!r}: {name} of data.name={config.name!r} has {found}; it must have {columns} columns")
    return source({name: Split(np.ascontiguousarray(x, np.float32)) for name, x in parts.items()}, 0)


def _power(root: Path) -> Splits:
    """From [N, 8]: active and reactive power, voltage, intensity, three sub-meters, time of day."""
    path = _file(root, "power/data.npy")
    data = _array(path, 8)
    rng, n = np.random.RandomState(_SEED), len(data)
    order = np.arange(n)
    rng.shuffle(order)  # the same draws as shuffling the rows themselves
    x = data[order][:, [0, 2, 4, 5, 6, 7]]  # reactive power is often 0, intensity goes with active power
    voltage, active, meters = 0.01 * rng.rand(n, 1), 0.001 * rng.rand(n, 1), rng.rand(n, 3)
    return _standardised(x + np.hstack([active, voltage, meters, np.zeros((n, 1))]))


def _gas(root: Path) -> Splits:
    """From the converted table: time, the concentrations of two gases, 16 sensors."""
    path = root / gas.CONVERTED
    if not path.is_file():
        command = f"python -m experiments.prepare --gas={shlex.quote(str(_file(root, gas.PICKLED)))}"
        raise UserError(f"data.path={str(root)!r} has no {gas.CONVERTED}; write it from the pickle, once: {command}")
    columns, x = gas.read_converted(path)
    left_out = ["Meth", "Eth", "Time"]
    if missing := [name for name in left_out if name not in columns]:
        raise UserError(f"{str(path)!r} is no table with the columns {', '.join(left_out)}: {', '.join(missing)} not there")
    x = x[:, [name not in left_out for name in columns]]
    with np.errstate(divide="ignore", invalid="ignore"):  # a constant column becomes NaN, which `data.load` reports
        # The published loop drops the first column that correlates with another, again and again: those that do with a later one.
        alike = np.triu(np.atleast_2d(np.corrcoef(x, rowvar=False)) > 0.98, 1)
        x = x[:, ~alike.any(axis=1)]
        return _split((x - x.mean(axis=0)) / x.std(axis=0, ddof=1))


def _hepmass(root: Path) -> Splits:
    """From two tables of a label (1: signal) and 27 features; the one for testing has a last column that belongs to nothing."""
    pandas = package("pandas", "data.name='hepmass'", "tables")
    paths = [_file(root, f"hepmass/1000_{name}.csv") for name in ("train", "test")]
    frames = []
    for path, end in zip(paths, (None, -1), strict=True):
        try:
            frame = pandas.read_csv(path, index_col=False).iloc[:, :end]
        except ValueError as error:  # what pandas raises of a file that is no table is one
            raise UserError(f"{str(path)!r} cannot be read as csv: {' '.join(str(error).split())}") from None
        if text := [str(name) for name, kind in frame.dtypes.items() if kind.kind not in "fiu"]:
            raise UserError(f"{str(path)!r} has columns that are not numbers: {', '.join(text)}")
        frames.append(frame[frame.iloc[:, 0] == 1].iloc[:, 1:])
    train, test = frames
    if list(train.columns) != list(test.columns):
        ends = [f"{path.name} {', '.join(map(str, frame.columns))}" for path, frame in zip(paths, frames, strict=True)]
        raise UserError(f"{str(paths[0].parent)!r}: the files' columns differ: {'; '.join(ends)} (without its last)")
    mean, std = train.mean(), train.std()
    x, test = ((train - mean) / std).to_numpy(), ((test - mean) / std).to_numpy()
    if not len(x):
        raise UserError(f"{str(paths[0])!r} has no row whose label, the first column, is 1")
    keep = (x == x.min(axis=0)).sum(axis=0) <= 5
    n = len(x) - int(len(x) * 0.1)
    return x[:n, keep], x[n:, keep], test[:, keep]


def _miniboone(root: Path) -> Splits:
    """From [N, 43], which was cleaned before it was published."""
    return _standardised(_array(_file(root, "miniboone/data.npy"), 43))


def _bsds300(root: Path) -> Splits:
    """From [N, 63] three times."""
    h5py, path = package("h5py", "data.name='bsds300'", "hdf5"), _file(root, "BSDS300/BSDS300.hdf5")
    names = ("train", "validation", "test")
    try:
        with h5py.File(path, "r") as file:
            if missing := [name for name in names if name not in file]:
                raise UserError(f"{str(path)!r} has no {', '.join(missing)}; it has {', '.join(file) or 'nothing'}")
            train, val, test = (np.asarray(file[name]) for name in names)
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read as hdf5: {error}") from None
    return train, val, test


TABLES = {
    "power": TabularSet(6, _power),
    "gas": TabularSet(8, _gas),
    "hepmass": TabularSet(21, _hepmass),
    "miniboone": TabularSet(43, _miniboone),
    "bsds300": TabularSet(63, _bsds300),
}


def _split(x: np.ndarray) -> Splits:
    """The first rows, a tenth of those before the last tenth, the last tenth, each rounded down."""
    rest = len(x) - int(0.1 * len(x))
    train = rest - int(0.1 * rest)
    return x[:train], x[train:rest], x[rest:]


def _standardised(x: np.ndarray) -> Splits:
    """The splits of x with the mean and the (biased) standard deviation of train and val."""
    train, val, test = _split(x)
    seen = x[: len(train) + len(val)]
    mean, std = seen.mean(axis=0), seen.std(axis=0)
    return (train - mean) / std, (val - mean) / std, (test - mean) / std


def _file(root: Path, name: str) -> Path:
    if not (root / name).is_file():
        hint = f"; did you mean data.path={str(root / 'data')!r}?" if (root / "data" / name).is_file() else ""
        raise UserError(f"data.path={str(root)!r} has no file {name}{hint}; data.kind='maf' needs {ARCHIVE}")
    return root / name


def _array(path: Path, columns: int) -> np.ndarray:
    """The array [N, columns] of numbers in an .npy file."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{str(path)!r} cannot be read as npy: {' '.join(str(error).split())}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.shape[1:] != (columns,):
        found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise UserError(f"{str(path)!r} must hold numbers [N, {columns}]; it holds {found}")
    return array
