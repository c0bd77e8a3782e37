"""Pairs (x0, x) of two sources: what a flow between two data sets, or from a corrupted example to a clean one, is trained on.

    data.kind = "pair"
    data.x    = {"kind": "density", "name": "moons"}         x, context, labels, mask and the density come from this source
    data.x0   = {"kind": "density", "name": "8gaussians"}    x0 is the x of this source

Each group is laid over the section `data`: it names what differs from it. data.pairing says how the rows belong together:

    rows      row i of x0 belongs to row i of x. Both sources have equally many examples in each split; two files of equal length are
              split by fraction alike
    shuffle   the sources are independent. In training, the rows of x0 have a permutation of their own in every epoch, and the shorter
              source is repeated from its start. Validation and test have the examples of x once each, in the stored order, with those
              of x0 in turn
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vaeflow.build import check
from vaeflow.data.source import DataConfig, Source, Split, rows
from vaeflow.errors import UnknownKind, UserError, unknown

# Keys of one source. The others are of the pair.
OWN = (
    *("kind", "name", "dir", "path", "label", "train", "val", "test", "val_fraction", "test_fraction"),
    *("classes", "size", "levels", "cache_dir"),
)
# (checked section, the run's seed, the config key of the section) -> the source, see `vaeflow.data.load`
Loader = Callable[[DataConfig, int, str], Source]


def load(config: DataConfig, seed: int, load_source: Loader) -> Source:
    """data.kind=pair: the source of data.x with the examples of data.x0 as x0.

    Args:
        config: the section config.data.
        seed: of the run; both sources get it.
        load_source: loads a source that is not a pair.

    Raises:
        UserError: a group is not that of a source, or the two sources do not fit together.
    """
    one, other = (_load_half(config, name, seed, load_source) for name in ("x", "x0"))
    if one.splits().keys() != other.splits().keys():
        both = f"data.x has the splits {', '.join(one.splits())}, data.x0 has {', '.join(other.splits())}"
        raise UserError(f"{both}; a pair needs the same: see val_fraction and test_fraction")
    if one.levels != other.levels:
        raise UserError(f"data.x has {one.levels} levels and data.x0 has {other.levels} (0: continuous); a pair needs the same")
    found = one.map(lambda name, split: _joined(name, split, other.split(name).x, config.pairing))
    return found._replace(seeded=one.seeded or other.seeded)


def _load_half(config: DataConfig, name: str, seed: int, load_source: Loader) -> Source:
    """The source of the group data.x or data.x0."""
    group, where = getattr(config, name), f"data.{name}"
    if not group.get("kind"):
        raise UserError(f"{where}.kind is missing: data.kind='pair' needs the kinds of its two sources, data.x.kind and data.x0.kind")
    for key in group:
        if key not in DataConfig._fields:
            raise unknown(f"{where}: the key", key, OWN)
        if key not in OWN:
            raise UserError(f"{where}.{key} is invalid: {key!r} is of the pair; set data.{key}. Known here: {', '.join(OWN)}")
    if group["kind"] == config.kind:
        raise UserError(f"{where}.kind={config.kind!r} is invalid: a pair has no pair inside")
    # The pair is binarized as a whole, see vaeflow.data.load.
    section = config._asdict() | dict(x={}, x0={}, pairing="rows", binarize="none", augment=()) | dict(group)
    checked = DataConfig(**check(DataConfig, section, where, {}))
    try:
        found = load_source(checked, seed, where)
    except UnknownKind:
        raise
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if found.train.x0 is not None:
        raise UserError(f"{where}: the source has x0 itself; use it without data.kind='pair'")
    if name == "x0" and found.train.mask is not None:
        raise UserError(f"{where}: the source has a mask, which only data.x may have")
    return found


def _joined(name: str, split: Split, x0: np.ndarray, pairing: str) -> Split:
    """The split `name` of x with its x0."""
    n, m = len(split.x), len(x0)
    if n != m and pairing == "rows":
        raise UserError(
            f"data.pairing='rows' needs as many x0 as x, and the split {name!r} has {n:,} x and {m:,} x0; "
            "set data.pairing='shuffle' for independent sources"
        )
    size = max(n, m) if name == "train" else n
    if size > n:
        split = rows(split, np.arange(size) % n)
    return split._replace(x0=x0[:size] if m >= size else x0[np.arange(size) % m])
