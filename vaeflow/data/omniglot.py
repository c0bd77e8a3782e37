"""Omniglot as the IWAE paper has it (Burda, Grosse, Salakhutdinov 2016): 28x28 grey images, 24,345 to train and 8,070 to test.

The file is chardata.mat, which the paper's authors keep beside their code (yburda/iwae, datasets/OMNIGLOT): arrays `data` [784, N] and
`testdata` [784, M] of intensities in [0, 1] (or 0..255), an image a column, its pixels column by column; where they are there, `target`
[50, N] and `testtarget`, one-hot alphabets, are the labels. Intensities become grey values 0..255; data.binarize says how they are drawn
black or white.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from vaeflow.data.source import DataConfig, Source, Split, carve, require, rows, source
from vaeflow.errors import UserError

SIDE = 28


def load(config: DataConfig, seed: int) -> Source:
    """data.kind=omniglot: the file data.path; data.val_fraction of the training images select."""
    del seed
    from scipy import io
    from scipy.io.matlab import MatReadError

    path = Path(require(config, "path", "the file chardata.mat of yburda/iwae (datasets/OMNIGLOT)")).expanduser()
    where = f"data.path={config.path!r}"
    if not path.is_file():
        raise UserError(f"{where} is no file; it must be chardata.mat of yburda/iwae (datasets/OMNIGLOT)")
    try:
        found = io.loadmat(path)
    except (OSError, zlib.error, ValueError, TypeError, NotImplementedError, MatReadError) as error:  # cut off, damaged, of another kind
        raise UserError(f"{where} cannot be read as a .mat file: {' '.join(str(error).split())}") from None
    splits, labelled = {}, "target" in found and "testtarget" in found
    for split, prefix in (("train", ""), ("test", "test")):
        if (name := f"{prefix}data") not in found:
            have = ", ".join(sorted(key for key in found if not key.startswith("__")))
            raise UserError(f"{where} has no array {name!r}; it has {have}")
        label = found[f"{prefix}target"].argmax(0).astype(np.int32) if labelled else None
        splits[split] = Split(_images(found[name], where), label=label)
    train = splits.pop("train")
    for split, index in carve(len(train.x), config, have=splits).items():
        splits[split] = rows(train, index)
    return source(splits, 256, tuple(str(i) for i in range(len(found["target"]))) if labelled else None)


def _images(columns: np.ndarray, where: str) -> np.ndarray:
    """[784, N] intensities -> [N, 28, 28, 1] uint8."""
    if columns.ndim != 2 or len(columns) != SIDE * SIDE:
        raise UserError(f"{where} has an array of shape {columns.shape}; it must be [{SIDE * SIDE}, N]")
    top = columns.max(initial=0)
    grey = np.rint(np.asarray(columns, np.float64) * (255 if top <= 1 else 1))
    if columns.min(initial=0) < 0 or top > 255:
        raise UserError(f"{where} has intensities from {columns.min()} to {top}; they must be in [0, 1] or 0..255")
    return grey.astype(np.uint8).T.reshape(-1, SIDE, SIDE, 1).transpose(0, 2, 1, 3)
