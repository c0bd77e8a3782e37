"""A text file as sequences of characters: windows of data.size characters, one behind the other, as integers.

The splits are contiguous: the beginning of the file trains, then come data.val_fraction and at the end data.test_fraction of its characters
(5 percent each of text8 by custom). Every character of the file is a category, in the order of their code points, which Source.alphabet
lists. An incomplete window at the end of a split is left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vaeflow.data.source import DataConfig, Source, Split, require, source
from vaeflow.errors import UserError


def load(config: DataConfig, seed: int) -> Source:
    """data.kind=text: the file data.path, UTF-8, in windows of data.size characters."""
    del seed
    path, length = Path(require(config, "path", "a text file")).expanduser(), require(config, "size", "the characters of an example")
    where = f"data.path={config.path!r}"
    if not path.is_file():
        raise UserError(f"{where} is no file; data.kind='text' needs a text file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is no text in UTF-8: {error}") from None
    alphabet = tuple(sorted(set(text)))
    if len(alphabet) < 2:
        raise UserError(f"{where} has {len(alphabet)} different characters; it must have at least 2")
    codes = np.searchsorted(np.array(alphabet), np.array(list(text))).astype(np.min_scalar_type(len(alphabet) - 1))
    held = {"val": config.val_fraction, "test": config.test_fraction}
    counts = {name: round(len(codes) * fraction) for name, fraction in held.items()}
    counts = {"train": len(codes) - sum(counts.values()), **counts}
    splits, start = {}, 0
    for name, count in counts.items():
        rows, start = codes[start : start + count], start + count
        if count and len(rows) < length:
            raise UserError(f"{where}: the split {name!r} has {len(rows)} characters, fewer than data.size={length}")
        if count:
            splits[name] = Split(rows[: len(rows) // length * length].reshape(-1, length))
    return source(splits, len(alphabet))._replace(alphabet=alphabet)


def decode(x: np.ndarray, alphabet: tuple[str, ...]) -> list[str]:
    """Sequences of integers [N, L] as text."""
    return ["".join(alphabet[i] for i in row) for row in np.asarray(x, int)]
