"""What every data source gives, `Source`, and what all sources share: the config section, labels, splits by fraction.

Nothing here depends on the run's seed: which example is in which split is a property of the data, so that runs with different
seeds (and their tables) stand on the same test set.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from vaeflow.build import Count, Decay, Natural, check
from vaeflow.errors import UserError, unknown

SPLITS = ("train", "val", "test")
# Of the permutation behind every split by fraction.
_SPLIT_SEED = 20131220


class DataConfig(NamedTuple):
    """The section `config.data`. A kind ignores what it does not name; "" and 0 stand for none.

    kind            an entry of SOURCES: digits, density, tfds, npz, npy, hdf5, hf, csv, parquet, image_folder, maf, omniglot, text, pair;
                    arrays: those of a notebook, which the command does not have
    name            density, maf: which one. tfds: the dataset. npz, npy, hdf5: the array with the examples ("": `train` or else `x`). hf:
                    the column with them ("": the only one beside the label, or all as a table)
    dir             tfds: the data_dir that `experiments.prepare` filled
    path            npz, npy, hdf5, csv, parquet, omniglot, text: the file. image_folder, maf, hf: the folder; npy, csv, parquet: one file
                    a split
    label           csv, parquet: the labels' column. npz, npy, hdf5: the array with them, tfds, hf: their feature ("": `label`)
    train,val,test  tfds: split expressions such as train[:50000]; val and test may be "". npz, npy, hdf5, hf: arrays, or rows of one:
                    x[:90%]
    val_fraction, test_fraction   share of the training examples that becomes a split which the data do not have; 0: no such split. Files of
                    your own without splits of their own; omniglot; text: its last characters
    classes         names of the labels whose examples are kept; (): all
    size            density: training examples. text: characters of an example
    levels          npz, npy, hdf5, hf: number of values 0 .. levels - 1 of integer examples; 0: 256, or 2 when none is above 1
    context         none | label: one-hot labels | array: the array `context` of an npz, npy or hdf5
    binarize        none | threshold: x >= levels / 2 | static: one fixed Bernoulli draw | dynamic: a new draw for every step
    augment         names of flip (horizontal) and crop: of the training images in every step, see vaeflow/data/augment.py; (): none
    batch           examples per step, all devices together
    place           auto | device: resident, one dispatch for many steps | stream: gathered on the host by grain
    workers         threads that decode images or gather streamed batches
    prefetch        stream: batches gathered ahead
    cache_dir       where decoded images are kept ("": the user's cache folder)
    x, x0           pair: the sources of x and of x0, each a group of values that is laid over this section, such as
                    dict(kind="density", name="moons"), see vaeflow/data/pair.py
    pairing         of data with x0. rows: row i of x0 belongs to row i of x | shuffle: in training, every epoch pairs them anew at random
    """

    kind: str
    name: str = ""
    dir: str = ""
    path: str = ""
    label: str = ""
    train: str = ""
    val: str = ""
    test: str = ""
    val_fraction: Decay = 0.1
    test_fraction: Decay = 0.1
    classes: tuple[str, ...] = ()
    size: Natural = 0
    context: Literal["none", "label", "array"] = "none"
    binarize: Literal["none", "threshold", "static", "dynamic"] = "none"
    batch: Count = 128
    place: Literal["auto", "device", "stream"] = "auto"
    workers: Natural = 2
    prefetch: Natural = 16
    cache_dir: str = ""
    levels: Natural = 0
    augment: tuple[Literal["flip", "crop"], ...] = ()
    x: Mapping[str, Any] = {}
    x0: Mapping[str, Any] = {}
    pairing: Literal["rows", "shuffle"] = "rows"


def parse(data: Mapping[str, Any] | DataConfig) -> DataConfig:
    """The checked section `config.data`."""
    return data if isinstance(data, DataConfig) else DataConfig(**check(DataConfig, data, "data", {}))


class Split(NamedTuple):
    """Examples in a fixed order.

    x        [N, *event] uint8, uint16 or float32, possibly a read-only memory map; finite, also where mask is False
    context  [N, C] float32: what the model is conditioned on, or None
    label    [N] int32, 0 <= label < classes, or None
    x0       [N, *event0], the other half of a pair, on the grey values of x; its shape may be another one. Or None
    mask     [N, *event] bool, True where x was observed, or None
    """

    x: np.ndarray
    context: np.ndarray | None = None
    label: np.ndarray | None = None
    x0: np.ndarray | None = None
    mask: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """{name: array} of those that there are: the leaves of its batches."""
        return {name: array for name, array in self._asdict().items() if array is not None}


class Modes(NamedTuple):
    """The modes of an equal mixture of Gaussians N(c_k, std^2 I): centres c [K, D] and std."""

    centres: np.ndarray
    std: float


class Source(NamedTuple):
    """A data set.

    levels       number of values of x: 17 digits, 256 bytes, 2 binary; 0: continuous, used as it is
    label_names  of the classes 0, 1, ..., or None
    density      x [N, *event] -> log p(x) [N] in nats, float64, where it is known
    seeded       the run's seed draws examples: runs with different seeds have different data
    modes        of a mixture of Gaussians, or None
    alphabet     of text: the character of each level, or None
    """

    train: Split
    val: Split | None
    test: Split | None
    levels: int
    label_names: tuple[str, ...] | None = None
    density: Callable[[np.ndarray], np.ndarray] | None = None
    seeded: bool = False
    modes: Modes | None = None
    alphabet: tuple[str, ...] | None = None

    def splits(self) -> dict[str, Split]:
        """{name: split} of those that exist."""
        return {name: split for name in SPLITS if (split := getattr(self, name)) is not None}

    def split(self, name: str) -> Split:
        """The split `name`; a UserError when there is none."""
        if name not in self.splits():
            raise unknown("split", name, self.splits())
        return self.splits()[name]

    def map(self, change: Callable[[str, Split], Split]) -> Source:
        """The source with change(name, split) in place of each split."""
        return self._replace(**{name: change(name, split) for name, split in self.splits().items()})


def source(splits: Mapping[str, Split], levels: int, label_names: tuple[str, ...] | None = None) -> Source:
    """A Source from {name: split}; `val` and `test` may be absent."""
    return Source(splits["train"], splits.get("val"), splits.get("test"), levels, label_names)


def of_classes(source: Source, names: Sequence[str], key: str) -> Source:
    """The examples of a source whose labels have these names; their numbers stay. `key`: the config key of `names`, for the errors."""
    if source.label_names is None or source.train.label is None:
        raise UserError(f"{key}={tuple(names)} needs labels, and these data have none")
    for name in names:
        if name not in source.label_names:
            raise unknown(key, name, source.label_names)
    kept = [source.label_names.index(name) for name in names]

    def change(name: str, split: Split) -> Split:
        index = np.flatnonzero(np.isin(np.asarray(split.label), kept))
        if not len(index):
            raise UserError(f"{key}={tuple(names)} leaves no example in the split {name!r}")
        return rows(split, index)

    return source.map(change)._replace(density=None, modes=None)


def require(config: DataConfig, key: str, what: str) -> Any:
    """config.<key>, which this kind cannot do without."""
    value = getattr(config, key)
    if not value:
        raise UserError(f"data.{key}={value!r}: data.kind={config.kind!r} needs {what}")
    return value


class Piece(NamedTuple):
    """Rows start .. end - 1 of a stored split or array."""

    name: str
    start: int
    end: int


def disjoint(wanted: Mapping[str, Sequence[Piece]], config: DataConfig) -> None:
    """No example is in two splits: a number on trained (or selected) examples is not what it says."""
    for one, other in itertools.combinations(wanted, 2):
        for a, b in itertools.product(wanted[one], wanted[other]):
            if a.name == b.name and max(a.start, b.start) < min(a.end, b.end):
                both = f"data.{one}={getattr(config, one)!r} and data.{other}={getattr(config, other)!r}"
                raise UserError(f"{both} share examples of {a.name!r}; splits must not overlap")


def carve(n: int, config: DataConfig, have: Collection[str] = ()) -> dict[str, np.ndarray]:
    """{split: rows} of n training examples: val and test, unless in `have`, take their fraction of them, at random but fixed."""
    counts = {name: 0 if name in have else round(n * getattr(config, f"{name}_fraction")) for name in ("val", "test")}
    for name, count in counts.items():
        fraction = getattr(config, f"{name}_fraction")
        if name not in have and fraction and not count:
            raise UserError(f"data.{name}_fraction={fraction} of {n} examples is none; raise it, or 0 for no such split")
    if sum(counts.values()) >= n:
        shares = ", ".join(f"data.{name}_fraction={getattr(config, f'{name}_fraction')}" for name, count in counts.items() if count)
        raise UserError(f"{shares} leave no training example of {n}")
    return cut(n, n - sum(counts.values()), *counts.values())


def cut(n: int, *counts: int) -> dict[str, np.ndarray]:
    """{split: ascending rows} of a fixed permutation of n rows, with so many for train, val, test; empty ones are left out."""
    order = np.random.default_rng(_SPLIT_SEED).permutation(n)
    parts = np.split(order, np.cumsum(counts))[: len(counts)]
    return {name: np.sort(part) for name, part in zip(SPLITS, parts, strict=True) if len(part)}


def rows(split: Split, index: np.ndarray) -> Split:
    """The rows `index` of every array of a split."""
    return Split(**{name: array[index] for name, array in split.arrays().items()})


def encode_labels(labels: Sequence[np.ndarray], key: str) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Arrays of integer or text labels as class numbers [N] int32, the same over all arrays, and the classes' names in order.

    Text that reads as integers is taken as such, so that "10" comes after "9".
    """
    values = np.concatenate([np.asarray(a) for a in labels])
    if values.ndim != 1 or values.dtype.kind not in "biufUS":
        raise UserError(f"{key}: labels must be one number or text per example; they are {values.dtype} of shape {values.shape}")
    if values.dtype.kind in "US":
        try:
            values = values.astype(np.int64)
        except ValueError:
            values = values.astype(np.str_)
    elif values.dtype.kind == "f":
        if not np.array_equal(values, np.round(values)):
            raise UserError(f"{key}: labels must be whole numbers or text; one is {values[values != np.round(values)][0]}")
        values = values.astype(np.int64)
    names, numbers = np.unique(values, return_inverse=True)
    ends = np.cumsum([len(a) for a in labels])[:-1]
    return np.split(numbers.astype(np.int32), ends), tuple(str(n) for n in names)


def named_split(source: Source, split: str = "") -> str:
    """`split`, or "": the test split, without one the validation split, else the training split. UserError: there is none."""
    known = source.splits()
    if split and split not in known:
        raise UserError(f"--split={split!r}: this run has no such split; known: {', '.join(known)}")
    return split or next(name for name in ("test", "val", "train") if name in known)


def summary(source: Source) -> dict[str, Any]:
    """data.json: what a run's data were, for commands that do not read them again."""
    context = source.train.context
    pairs = {} if source.train.x0 is None else {"pairs": True}
    text = {} if source.alphabet is None else {"alphabet": list(source.alphabet)}
    return {
        "examples": {name: len(split.x) for name, split in source.splits().items()},
        "event": list(source.train.x.shape[1:]),
        "levels": source.levels,
        "labels": list(source.label_names or ()),
        "context": 0 if context is None else context.shape[-1],
        "moments": moments(source),
        **pairs,
        **text,
    }


def moments(source: Source) -> dict[str, list[float]]:
    """{split: [mean, standard deviation]} of x over up to 4,096 evenly spaced examples: tells other data from the run's own. Those of
    x0 are named "split x0".

    Not a hash: floats that are standardised or generated differ in their last bits between processors.
    """

    def of(x: np.ndarray) -> list[float]:
        rows = np.linspace(0, len(x) - 1, min(len(x), 4096)).round().astype(int)
        some = np.asarray(x[rows], np.float64)
        return [float(some.mean()), float(some.std())]

    splits = source.splits()
    x0 = {f"{name} x0": split.x0 for name, split in splits.items() if split.x0 is not None}
    return {name: of(x) for name, x in ({name: split.x for name, split in splits.items()} | x0).items()}


def differs(kept: Mapping[str, Sequence[float]], source: Source) -> str:
    """The first split whose moments differ by more than 1e-4 standard deviations from the kept ones, or that is missing; "": none.

    An x0 that the kept ones do not have is ignored: runs of before x0 was read may have it in their file.
    """
    found = moments(source)
    for name in dict.fromkeys((*kept, *(name for name in found if name in SPLITS))):
        here, there = found.get(name), kept.get(name)
        if here is None or there is None or any(abs(a - b) > 1e-4 * (abs(there[1]) + 1e-12) for a, b in zip(here, there, strict=True)):
            return name
    return ""
