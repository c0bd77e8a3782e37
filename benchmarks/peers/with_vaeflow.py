"""The process of vaeflow itself, so that it is timed as the others are: `sampling LAYERS UNITS POINTS D ...` (process.py)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import process
from vaeflow.bijectors import Layer, inverse
from vaeflow.build import build
from vaeflow.distributions import standard_normal

VERSIONS = {"jax": metadata.version("jax")}
TOLERANCE = 1e-5  # of the Jacobi iteration


def maf(layers: int, units: int, inversion: str) -> Layer:
    """MAF layers with a reversal of the dimensions between them, as one scan."""
    made = dict(
        kind="made", hidden=(units, units), activation="relu", order="natural", inversion=inversion, tolerance=TOLERANCE, dtype="float32"
    )
    parts: dict[str, Any] = dict(
        flow=dict(kind="repeat", of="step", n=layers, memory="store"),
        step=dict(kind="chain", of=["maf", "flip"]),
        maf=dict(kind="affine_autoregressive", made="made", cap=3.0),
        flip=dict(kind="permutation", order="reverse"),
        made=made,
    )
    return build(parts, "flow", Layer)


def weights(layer: Layer, z: Any) -> Any:
    """Initial parameters, but the head as the other libraries start it, uniform on +-1 / sqrt(units): at zero the flow would be the
    identity, and Jacobi done after one pass."""
    params = layer.init(jax.random.key(1), z)
    noise = np.random.default_rng(0)

    def start(path, leaf):
        if not jax.tree_util.keystr(path, simple=True, separator="/").endswith("head/kernel"):
            return leaf
        return jnp.asarray(noise.uniform(-1, 1, leaf.shape) / np.sqrt(leaf.shape[-2]), leaf.dtype)

    return jax.tree_util.tree_map_with_path(start, params)


def sampling(words: list[str]) -> Iterator[process.Answer]:
    """Draws of MAF, and the log-density of its inverse (IAF), by both inversions, for each D."""
    layers, units, points, *dimensions = map(int, words)
    key = jax.random.key(0)
    for inversion in ("incremental", "jacobi"):
        layer = maf(layers, units, inversion)
        iaf = inverse(layer)
        for d in dimensions:
            z = jax.random.normal(key, (points, d))
            params = weights(layer, z)

            def draw(params, key, layer=layer, d=d):
                return layer.bijector(params).forward(jax.random.normal(key, (points, d)))

            def density(params, x, iaf=iaf, d=d):
                latent, log_det = iaf.bijector(params).inverse_and_log_det(x)
                return standard_normal((d,)).log_prob(latent) + log_det

            began = time.perf_counter()
            compiled = jax.jit(draw).lower(params, key).compile()
            seconds = time.perf_counter() - began
            score = jax.jit(density).lower(params, z).compile()
            back = jax.jit(layer.bijector(params).inverse)(compiled(params, key))
            yield {
                "library": f"vaeflow, {inversion}",
                "d": d,
                "sample": process.measure(lambda run=compiled, params=params: run(params, key).block_until_ready()),
                "density": process.measure(lambda run=score, params=params, z=z: run(params, z).block_until_ready()),
                "compile": seconds,
                "round_trip": float(jnp.max(jnp.abs(back - z) / (1 + jnp.abs(z)))),
                "versions": VERSIONS,
                "threads": os.cpu_count(),
            }


if __name__ == "__main__":
    process.serve(sampling=sampling)
