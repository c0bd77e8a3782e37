"""The work that the speed comparison gives to every library: sizes, and the multiplications that they take (standard library alone)."""

from __future__ import annotations

import itertools
from typing import Any

POINTS = 1000  # of a draw
ROWS = 8192  # of the training data, standard normal numbers (or random bits)

WORKS: dict[str, dict[str, Any]] = {
    "spline": dict(title="RQ coupling flow, D=6, 10 layers, 256x2, 8 bins", d=6, layers=10, units=256, bins=8, bound=4.0, batch=512),
    "maf": dict(title="MAF, D=43, 5 layers, 512x2", d=43, layers=5, units=512, batch=512),
    "vae": dict(
        title="VAE 784-1024-1024-16, MAF prior 3x256x2",
        d=784,
        units=1024,
        latent=16,
        prior_layers=3,
        prior_units=256,
        batch=256,
    ),
}


def dense(*sizes: int) -> int:
    """Multiplications of a fully connected network on one example."""
    return sum(a * b for a, b in itertools.pairwise(sizes))


def multiplications(name: str, triangular: bool = False) -> float:
    """Of log_prob (vae: of the ELBO) on one example, matrix products alone. triangular: without the half of a masked network's products
    that are with zeros."""
    w = WORKS[name]
    half = 0.5 if triangular else 1.0
    if name == "spline":
        kept = w["d"] // 2
        return w["layers"] * dense(kept, w["units"], w["units"], (w["d"] - kept) * (3 * w["bins"] - 1))
    if name == "maf":
        return half * w["layers"] * dense(w["d"], w["units"], w["units"], 2 * w["d"])
    made = half * w["prior_layers"] * dense(w["latent"], w["prior_units"], w["prior_units"], 2 * w["latent"])
    return made + dense(w["d"], w["units"], w["units"], 2 * w["latent"]) + dense(w["latent"], w["units"], w["units"], w["d"])


def gflop(name: str, task: str, triangular: bool = False) -> float:
    """10^9 operations of one batch: two for a multiplication; a training step does the products of log_prob three times. Sampling has no
    floor here: it depends on the method."""
    return 2e-9 * multiplications(name, triangular) * WORKS[name]["batch"] * (3 if task == "train" else 1)
