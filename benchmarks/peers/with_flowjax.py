"""The process of FlowJAX, in its own environment: `sampling LAYERS UNITS POINTS D ...` (process.py)."""
# pyright: reportMissingImports=false
# No requirement of vaeflow: the environment that pyright looks into does not have these libraries.

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from importlib import metadata

import equinox as eqx
import jax
import jax.numpy as jnp
import paramax
from flowjax.distributions import StandardNormal
from flowjax.flows import masked_autoregressive_flow

from benchmarks.peers import process

VERSIONS = {name: metadata.version(name) for name in ("flowjax", "jax")}


def sampling(words: list[str]) -> Iterator[process.Answer]:
    """The sampler of masked_autoregressive_flow, and the log-density of the inverse flow (IAF, invert=False), for each D."""
    layers, units, points, *dimensions = map(int, words)
    key = jax.random.key(0)

    def draw(flow, key):
        return flow.sample(key, (points,))

    def density(flow, x):
        return flow.log_prob(x)

    def there_and_back(flow, z):
        return jax.vmap(flow.bijection.inverse)(jax.vmap(flow.bijection.transform)(z))

    for d in dimensions:
        z = jax.random.normal(key, (points, d))
        options = dict(base_dist=StandardNormal((d,)), flow_layers=layers, nn_width=units, nn_depth=2)
        # Masks are put in here, before anything is timed.
        maf = paramax.unwrap(masked_autoregressive_flow(key, invert=True, **options))
        iaf = paramax.unwrap(masked_autoregressive_flow(key, invert=False, **options))
        began = time.perf_counter()
        compiled = eqx.filter_jit(draw).lower(maf, key).compile()
        seconds = time.perf_counter() - began
        score = eqx.filter_jit(density).lower(iaf, z).compile()
        back = eqx.filter_jit(there_and_back)(maf, z)
        yield {
            "library": "FlowJAX",
            "d": d,
            "sample": process.measure(lambda run=compiled, maf=maf: run(maf, key).block_until_ready()),
            "density": process.measure(lambda run=score, iaf=iaf, z=z: run(iaf, z).block_until_ready()),
            "compile": seconds,
            "round_trip": float(jnp.max(jnp.abs(back - z) / (1 + jnp.abs(z)))),
            "versions": VERSIONS,
            "threads": os.cpu_count(),
        }


if __name__ == "__main__":
    process.serve(sampling=sampling)
