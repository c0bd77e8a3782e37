"""The process of vaeflow itself, so that it is timed as the others are: `sampling LAYERS UNITS POINTS D ...`, `speed WORK`,
`continuous WORK` (process.py)."""

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
    return trained(c, w["batch"])


def speed(words: list[str]) -> Iterator[process.Answer]:
    """One of works.WORKS: steps as experiments.train takes them (STEPS of them in one dispatch), log_prob of a batch, draws."""
    w, rng = works.WORKS[words[0]], np.random.default_rng(0)
    x = rng.random((works.ROWS, w["d"])) < 0.3 if words[0] == "vae" else rng.normal(size=(works.ROWS, w["d"])).astype(np.float32)
    split = data.Split(x.astype(np.uint8) if words[0] == "vae" else x)
    yield from timed(configured(words[0]), data.Source(split, None, None, 2 if words[0] == "vae" else 0), ("log_prob",))


def continuous(words: list[str]) -> Iterator[process.Answer]:
    """One of works.CONTINUOUS: the same without log_prob, and of a batch the loss alone and its gradient."""
    w = works.CONTINUOUS[words[0]]
    x = np.random.default_rng(0).normal(size=(works.ROWS, *w["event"])).astype(np.float32)
    yield from timed(continuous_config(words[0]), data.Source(data.Split(x), None, None, 0), ("loss", "gradient"))


def continuous_config(name: str) -> Any:
    """The config of one of works.CONTINUOUS. A draw's last evaluation is Tweedie's formula: for flow matching an Euler step to t = 0."""
    w, c = works.CONTINUOUS[name], base()
    c.model = dict(kind="diffusion")
    embedding = dict(kind="fourier", width=w["features"], scale=1.0)
    if name == "ffjord":
        c.model = dict(kind="flow", layer="layer")
        layer = dict(kind="cnf", net="net", embedding="embedding", solver="rk4", steps=w["evaluations"] // 4)
        c.parts = dict(layer=layer, net=mlp(*w["hidden"], activation="elu"), embedding=embedding)
    elif name == "mlp":
        c.parts = dict(net=mlp(*w["hidden"], activation="silu"), embedding=embedding)
    else:
        net = dict(kind="unet", channels=w["channels"], multipliers=w["multipliers"], blocks=w["blocks"], skip_scale=False)
        c.parts = dict(net=net, embedding=embedding | dict(kind="sinusoidal", times=1000.0))
        del c.parts.embedding["scale"]
    if name != "ffjord":
        c.sample.update(sampler="euler", steps=w["evaluations"] - 1)
    return trained(c, w["batch"])


def trained(c: Any, batch: int) -> Any:
    """The config with the optimiser of the other libraries, on one device, completed."""
    c.data.update(kind="npz", batch=batch)
    c.optim.update(learning_rate=1e-3, ema=0.0)
    c.devices.mapping = "jit"
    return complete(c)


def timed(config: Any, source: data.Source, more: tuple[str, ...]) -> Iterator[process.Answer]:
    """Steps, draws, matrix products, and of `more` log_prob, loss, gradient of a batch; compiled, then run when asked for."""
    made = setup.make_experiment(config, None, source)
    params, frozen, _ = setup.init_params(made)
    state, fixed = step.init_state(params, made.tx, made.optim.ema, frozen)
    params = step.eval_params(state, fixed)
    capacity = made.train.max_dispatch
    feed = data.make_feed(source.train, made.config.data, 0, slots=made.devices.slots(made.batch), steps=1 << 20, capacity=capacity)
    shared = step.StepInputs(fixed, feed.arrays, *run_keys(0), jnp.int32(STEPS))
    dispatch = step.make_dispatch(made.model, made.tx, made.optim.ema, made.devices, loop.make_take(made), feed.capacity)
    model, key, batch = made.model, jax.random.key(0), {"x": jnp.asarray(source.train.x[: made.batch])}
    held, seconds, mflop = [jax.tree.map(jnp.copy, state)], {}, {}

    def compiled(name: str, program: Any, *inputs: Any) -> Any:
        began = time.perf_counter()
        found = program.lower(*inputs).compile()
        seconds[name] = time.perf_counter() - began
        mflop[name] = (found.cost_analysis() or {}).get("flops", 0.0) / 1e6
        return found

    assert model.sample is not None
    run_train = compiled("train", jax.jit(dispatch, donate_argnums=0), held[0], shared, feed.chunk(0, STEPS))
    run_draw = compiled("sample", jax.jit(model.sample, static_argnums=2), params, key, works.POINTS)

    def steps():
        held[0], log = run_train(held[0], shared, feed.chunk(0, STEPS))
        np.asarray(log["loss"])

    def loss(params, key, batch):
        return model.loss(params, key, batch, jnp.int32(0))[0]

    of_batch = {"log_prob": model.log_prob, "loss": loss, "gradient": jax.grad(loss, allow_int=True)}
    runs = {"train": steps, "sample": lambda: jax.block_until_ready(run_draw(params, key)), "product": product()}
    for name in more:
        program = compiled(name, jax.jit(of_batch[name]), params, key, batch)
        runs[name] = lambda run=program: jax.block_until_ready(run(params, key, batch))
    for run in runs.values():
        run()
    yield {
        **{"compile": seconds, "mflop": mflop, "versions": VERSIONS, "threads": os.cpu_count()},
        **{"parameters": sum(a.size for a in jax.tree.leaves(state.trained))},
    }
    yield from process.requests(runs, {"train": STEPS})


def product() -> Callable[[], Any]:
    """The float32 product of two matrices of works.PRODUCT rows and columns: what the machine's arithmetic does at the most."""
    a = jax.random.normal(jax.random.key(0), (works.PRODUCT, works.PRODUCT))
    run = jax.jit(lambda a: a @ a)
    return lambda: run(a).block_until_ready()


if __name__ == "__main__":
    process.serve(sampling=sampling, speed=speed, continuous=continuous)
