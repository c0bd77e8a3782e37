"""The work that the speed comparison gives to every library: sizes, and the multiplications that they take (standard library alone)."""

from __future__ import annotations

import itertools
from typing import Any

POINTS = 1000  # of a draw
PRODUCT = 1024  # rows and columns of the matrices whose product gives the machine's rate
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

# Works of benchmarks/continuous.py. evaluations: of the network in a draw; features: of the time.
CONTINUOUS: dict[str, dict[str, Any]] = {
    "mlp": dict(
        title="flow matching, D=2, MLP 5x512",
        event=(2,),
        hidden=(512,) * 5,
        features=64,
        batch=512,
        evaluations=50,
    ),
    "unet": dict(
        title="flow matching, 8x8x1, U-Net of 32, 64 channels",
        event=(8, 8, 1),
        channels=32,  # torchcfm: multiples of 32
        multipliers=(1, 2),
        blocks=1,
        features=32,
        batch=64,
        evaluations=50,
    ),
    "ffjord": dict(title="CNF, D=2, MLP 3x64, exact trace", event=(2,), hidden=(64,) * 3, features=6, batch=512, evaluations=48),
}


def dense(*sizes: int) -> int:
    """Multiplications of a fully connected network on one example."""
    return sum(a * b for a, b in itertools.pairwise(sizes))


def multiplications(name: str, task: str, triangular: bool = False) -> float:
    """Of matrix products alone, on one example of a task: train, log_prob (vae: the ELBO of one draw) or sample. triangular: without the
    half of a masked network's products that are with zeros. Training: those of log_prob three times, but for the gradient at the data."""
    w = WORKS[name]
    half = 0.5 if triangular else 1.0
    if name == "spline":
        kept = w["d"] // 2
        first, forward = kept * w["units"], w["layers"] * dense(kept, w["units"], w["units"], (w["d"] - kept) * (3 * w["bins"] - 1))
    elif name == "maf":
        first, forward = half * w["d"] * w["units"], half * w["layers"] * dense(w["d"], w["units"], w["units"], 2 * w["d"])
    else:
        prior = half * w["prior_layers"] * dense(w["latent"], w["prior_units"], w["prior_units"], 2 * w["latent"])
        encoder, decoder = dense(w["d"], w["units"], w["units"], 2 * w["latent"]), dense(w["latent"], w["units"], w["units"], w["d"])
        first, forward = w["d"] * w["units"], prior + decoder + (encoder if task != "sample" else 0)
    return 3 * forward - first if task == "train" else forward


def gflop(name: str, task: str, triangular: bool = False) -> float:
    """10^9 operations of one batch, or of POINTS draws: two for a multiplication. (A draw of a MAF in one dense pass; layers that are
    inverted pass by pass do more.)"""
    return 2e-9 * multiplications(name, task, triangular) * (POINTS if task == "sample" else WORKS[name]["batch"])
