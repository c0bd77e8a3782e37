"""The process of FlowJAX, in its own environment: `sampling LAYERS UNITS POINTS D ...` and `speed WORK` (process.py)."""
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
import optax
import paramax
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import StandardNormal
from flowjax.flows import coupling_flow, masked_autoregressive_flow
from flowjax.train.losses import MaximumLikelihoodLoss
from flowjax.train.train_utils import step

from benchmarks.peers import process, works

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


def speed(words: list[str]) -> Iterator[process.Answer]:
    """One of works.WORKS: a step as fit_to_data takes it (its compiled `step`, Adam), log_prob of a batch, draws. Its splines learn the
    slopes at their ends too, 25 numbers where the others have 23."""
    w, key = works.WORKS[words[0]], jax.random.key(0)
    base = StandardNormal((w["d"],))
    options = dict(base_dist=base, flow_layers=w["layers"], nn_width=w["units"], nn_depth=2)
    if words[0] == "spline":
        spline = RationalQuadraticSpline(knots=w["bins"] - 1, interval=w["bound"])  # the inner ones
        dist = coupling_flow(key, transformer=spline, **options)
    else:
        dist = masked_autoregressive_flow(key, **options)
    data = jax.random.normal(key, (works.ROWS, w["d"])).reshape(-1, w["batch"], w["d"])
    params, static = eqx.partition(dist, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable))
    optimizer = optax.adam(1e-3)
    settings = dict(optimizer=optimizer, loss_fn=MaximumLikelihoodLoss())
    state = [params, optimizer.init(params)]
    began = time.perf_counter()
    step.lower(params, static, data[0], key=key, opt_state=state[1], **settings).compile()
    seconds = {"train": time.perf_counter() - began}
    plain = paramax.unwrap(dist)
    score = eqx.filter_jit(lambda flow, x: flow.log_prob(x))
    draw = eqx.filter_jit(lambda flow, key: flow.sample(key, (works.POINTS,)))
    began = time.perf_counter()
    run_draw = draw.lower(plain, key).compile()
    seconds["sample"] = time.perf_counter() - began
    began = time.perf_counter()
    run_score = score.lower(plain, data[0]).compile()
    seconds["log_prob"] = time.perf_counter() - began

    def train():
        # One pass over the data in a Python loop, as fit_to_data's: a key a step, the losses read at the end of the pass.
        losses, own = [], key
        for batch in data:
            own, of_step = jax.random.split(own)
            state[0], state[1], loss = step(state[0], static, batch, key=of_step, opt_state=state[1], **settings)
            losses.append(loss)
        sum(loss.item() for loss in losses)

    runs = {
        "train": train,
        "log_prob": lambda: run_score(plain, data[0]).block_until_ready(),
        "sample": lambda: run_draw(plain, key).block_until_ready(),
    }
    for run in runs.values():
        run()
    parameters = sum(a.size for a in jax.tree.leaves(eqx.filter(params, eqx.is_inexact_array)))
    yield {"compile": seconds, "versions": VERSIONS, "threads": os.cpu_count(), "parameters": parameters}
    yield from process.requests(runs, {"train": len(data)})


if __name__ == "__main__":
    process.serve(sampling=sampling, speed=speed)
