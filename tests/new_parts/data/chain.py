"""Integer sequences from a Markov chain whose transition probabilities are known, so that the entropy of the data is."""

from __future__ import annotations

import numpy as np

from vaeflow.data.source import DataConfig, Source, Split, carve, require, source

LENGTH = 12
_SEED = 1906  # of the transition matrix and of the sequences


def load(config: DataConfig, seed: int) -> Source:
    """data.kind=chain: `size` sequences [LENGTH] uint8 of `levels` symbols, split by data.val_fraction and data.test_fraction."""
    del seed
    size, levels = require(config, "size", "the number of sequences"), require(config, "levels", "the number of symbols")
    rng = np.random.default_rng((_SEED, levels))
    # Row s: the probabilities of the symbol after s. The first symbol is uniform.
    after = rng.dirichlet(np.full(levels, 0.5), levels)
    x = np.empty((size, LENGTH), np.uint8)
    x[:, 0] = rng.integers(levels, size=size)
    for t in range(1, LENGTH):
        x[:, t] = (rng.random((size, 1)) > after[x[:, t - 1]].cumsum(1)).sum(1).clip(max=levels - 1)

    def log_prob(x):
        return np.log(after[x[:, :-1], x[:, 1:]]).sum(1) - np.log(levels)

    found = source({name: Split(x[rows]) for name, rows in carve(size, config).items()}, levels)
    return found._replace(density=log_prob)
