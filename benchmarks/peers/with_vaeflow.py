"""The process of vaeflow itself, so that it is timed as the others are: `sampling LAYERS UNITS POINTS D ...`, `speed WORK` (process.py)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import process, works
from configs.base import base, made, mlp, repeat, spline
from vaeflow import data
from vaeflow.bijectors import Layer, inverse
from vaeflow.build import build
from vaeflow.distributions import standard_normal
from vaeflow.rng import run_keys
from vaeflow.training import loop, setup, step
from vaeflow.training.configure import complete

VERSIONS = {"jax": metadata.version("jax")}
TOLERANCE = 1e-5  # of the Jacobi iteration
STEPS = 16  # of one dispatch


def maf(layers: int, units: int, inversion: str) -> Layer:
    """MAF layers with a reversal of the dimensions between them, as one scan."""
    parts: dict[str, Any] = dict(
        flow=dict(kind="repeat", of="step", n=layers),
        step=dict(kind="chain", of=["maf", "permutation"]),
        maf=dict(kind="affine_autoregressive", made="made", cap=3.0),
        made=dict(kind="made", hidden=(units, units), inversion=inversion, tolerance=TOLERANCE),
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


def configured(name: str) -> Any:
    """The config of one of works.WORKS."""
    w, c = works.WORKS[name], base()
    parts: dict[str, Any] = dict(step=dict(kind="chain", of=("layer", "flip")), flip=dict(kind="permutation"))
    if name != "spline":
        parts["layer"] = dict(kind="affine_autoregressive", made="made", cap=3.0)
    if name == "vae":
        c.model = dict(kind="vae", event=(w["d"],), levels=2, latent=w["latent"])
        net = mlp(w["units"], w["units"])
        parts |= dict(encoder=net, decoder=net, prior=repeat("step", w["prior_layers"]), made=made(w["prior_units"], w["prior_units"]))
    else:
        c.model = dict(kind="flow", event=(w["d"],), layer="flow")
        parts["flow"] = repeat("step", w["layers"])
        if name == "spline":
            parts |= dict(layer=spline("net", "half", False, w["bins"], w["bound"]), net=mlp(w["units"], w["units"]))
        else:
            parts["made"] = made(w["units"], w["units"])
    c.parts = parts
    c.data.update(kind="npz", batch=w["batch"])
    c.optim.update(learning_rate=1e-3, ema=0.0)
    c.devices.mapping = "jit"
    return complete(c)


def speed(words: list[str]) -> Iterator[process.Answer]:
    """One of works.WORKS: steps as experiments.train takes them (STEPS of them in one dispatch), log_prob of a batch, draws."""
    w, rng = works.WORKS[words[0]], np.random.default_rng(0)
    x = rng.random((works.ROWS, w["d"])) < 0.3 if words[0] == "vae" else rng.normal(size=(works.ROWS, w["d"])).astype(np.float32)
    split = data.Split(x.astype(np.uint8) if words[0] == "vae" else x)
    made = setup.make_experiment(configured(words[0]), None, data.Source(split, None, None, 2 if words[0] == "vae" else 0))
    params, frozen, _ = setup.init_params(made)
    state, fixed = step.init_state(params, made.tx, made.optim.ema, frozen)
    params = step.eval_params(state, fixed)
    feed = data.make_feed(split, made.config.data, 0, slots=made.devices.slots(made.batch), steps=1 << 20, capacity=made.train.max_dispatch)
    shared = step.StepInputs(fixed, feed.arrays, *run_keys(0), jnp.int32(STEPS))
    dispatch = step.make_dispatch(made.model, made.tx, made.optim.ema, made.devices, loop.make_take(made), feed.capacity)
    model, key, batch = made.model, jax.random.key(0), {"x": jnp.asarray(split.x[: w["batch"]])}
    held = [jax.tree.map(jnp.copy, state)]
    began = time.perf_counter()
    run_train = jax.jit(dispatch, donate_argnums=0).lower(held[0], shared, feed.chunk(0, STEPS)).compile()
    seconds = {"train": time.perf_counter() - began}
    began = time.perf_counter()
    assert model.sample is not None
    run_draw = jax.jit(model.sample, static_argnums=2).lower(params, key, works.POINTS).compile()
    seconds["sample"] = time.perf_counter() - began
    assert model.log_prob is not None
    began = time.perf_counter()
    run_score = jax.jit(model.log_prob).lower(params, key, batch).compile()
    seconds["log_prob"] = time.perf_counter() - began

    def steps():
        held[0], log = run_train(held[0], shared, feed.chunk(0, STEPS))
        np.asarray(log["loss"])

    runs = {
        "train": steps,
        "log_prob": lambda: run_score(params, key, batch).block_until_ready(),
        "sample": lambda: run_draw(params, key).block_until_ready(),
        "product": product(),
    }
    for run in runs.values():
        run()
    yield {
        **{"compile": seconds, "versions": VERSIONS, "threads": os.cpu_count()},
        **{"parameters": sum(a.size for a in jax.tree.leaves(state.trained))},
    }
    yield from process.requests(runs, {"train": STEPS})


def product() -> Callable[[], Any]:
    """The float32 product of two matrices of works.PRODUCT rows and columns: what the machine's arithmetic does at the most."""
    a = jax.random.normal(jax.random.key(0), (works.PRODUCT, works.PRODUCT))
    run = jax.jit(lambda a: a @ a)
    return lambda: run(a).block_until_ready()


if __name__ == "__main__":
    process.serve(sampling=sampling, speed=speed)
