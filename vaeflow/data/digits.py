"""The handwritten digits that scikit-learn carries: no download, no file."""

from __future__ import annotations

import numpy as np

from vaeflow.data.source import DataConfig, Source, Split, cut, rows, source


def load(config: DataConfig, seed: int) -> Source:
    """data.kind=digits: 1797 images [8, 8, 1] uint8 in 0 .. 16 (E. Alpaydin and C. Kaynak, UCI, 1998), split 1297/200/300."""
    del config, seed
    from sklearn.datasets import load_digits  # takes a second to import

    images, label = load_digits(return_X_y=True)
    whole = Split(images.reshape(-1, 8, 8, 1).astype(np.uint8), label=np.asarray(label, np.int32))
    parts = cut(len(whole.x), 1297, 200, 300)
    return source({name: rows(whole, index) for name, index in parts.items()}, 17, tuple("0123456789"))
