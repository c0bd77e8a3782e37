"""Trace and compile of the whole training step of a spline coupling flow, shallow and deep, without any cache.

    python -m benchmarks.compile --output=results/speed_compile.md

The program is the one that `fit` runs (step.make_dispatch: rows of the batches, loss, gradients, clipping, Adam, moving average,
log) for neural spline couplings of 6 numbers with networks 256x2, one lax.scan over a coupling and a reversal. Every measurement is
a process of its own with the persistent compilation cache off, timed after the imports, the building of the model and the
initialisation of its parameters: what is left is trace (to a jaxpr), lower (to StableHLO) and compile (XLA). The depths take
turns. Exit status 1 when the median of the deepest is above LIMIT seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import common
from configs.base import base, mlp, repeat, spline
from vaeflow import data, models
from vaeflow.build import call
from vaeflow.training import optimizer, step
from vaeflow.training.configure import complete
from vaeflow.training.devices import DevicesConfig, make_devices

LIMIT = 3.0
STAGES = ("trace", "lower", "compile")
EVENT, BATCH, CAPACITY, ROWS = (6,), 512, 64, 10_000


def config(layers: int) -> Any:
    """A flow of `layers` couplings, each before a reversal of the numbers: ONE coupling in the program, whatever the depth."""
    c: Any = base()
    c.model = dict(kind="flow", event=EVENT, layer="steps")
    c.parts = dict(steps=repeat("step", layers), step=dict(kind="chain", of=("coupling", "permutation")))
    c.parts.update(coupling=spline("net", "half", False), net=mlp(256, 256))
    c.optim.update(clip=5.0, schedule="cosine")
    return complete(c)


def dispatch(layers: int) -> tuple[Any, tuple[Any, ...]]:
    """The program of `fit` for this flow, and its arguments."""
    c = config(layers)
    chosen = call(optimizer.OptimConfig, c.optim.to_dict(), "optim")
    model, tx = models.build_model(c), optimizer.make_optimizer(chosen, c.train.steps)
    x = jax.random.normal(jax.random.key(0), (ROWS, *EVENT))
    state, fixed = step.init_state(jax.jit(model.init)(jax.random.key(1), {"x": x[:BATCH]}), tx, chosen.ema)
    devices = make_devices(DevicesConfig("jit"))
    program = step.make_dispatch(model, tx, chosen.ema, devices, lambda arrays, chunk, i, _: data.select(arrays, chunk, i), CAPACITY)
    shared = step.StepInputs(fixed, {"x": x}, jax.random.key(2), jax.random.key(3), jnp.zeros((), jnp.int32))
    return program, (state, shared, {"x": jnp.zeros((1, CAPACITY, BATCH), jnp.int32)})


def once(layers: int) -> dict[str, float]:
    """Seconds of each stage in this process."""
    program, arguments = dispatch(layers)
    began = time.perf_counter()
    traced = jax.jit(program, donate_argnums=0).trace(*arguments)
    at = [began, time.perf_counter()]
    lowered = traced.lower()
    at.append(time.perf_counter())
    lowered.compile()
    at.append(time.perf_counter())
    return {name: b - a for name, a, b in zip(STAGES, at, at[1:], strict=False)}


def fresh(layers: int) -> dict[str, float]:
    """`once` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.compile", f"--once={layers}"]
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(command, cwd=common.ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure, print, write; exit 1 above LIMIT."""
    p = common.parser(__doc__)
    p.add_argument("--layers", type=int, action="append", help="default: 8 and 32")
    p.add_argument("--repeats", type=int, default=5, help="processes for each depth")
    p.add_argument("--once", type=int, help=argparse.SUPPRESS)
    flags = p.parse_args()
    if flags.once:
        print(json.dumps(once(flags.once)))
        return
    depths = flags.layers or [8, 32]
    found: dict[int, list[dict[str, float]]] = {layers: [] for layers in depths}
    for _ in range(flags.repeats):
        for layers in depths:
            found[layers].append(fresh(layers))
    rows = []
    for layers, runs in found.items():
        whole = common.middle([sum(run.values()) for run in runs])
        stages = [f"{common.middle([run[name] for run in runs])[0]:.2f}" for name in STAGES]
        rows.append([layers, f"{whole[0]:.2f}", f"{whole[1]:.2f} to {whole[2]:.2f}", *stages, len(runs)])
    titles = ["layers", "seconds", "quartiles", *STAGES, "processes"]
    notes = f"The train step of spline couplings (8 bins, networks 256x2) of {EVENT[0]} numbers; medians over fresh processes, no cache."
    common.sheet("Trace and compile of a whole train step", titles, rows, notes, flags.output, "benchmarks.compile")
    over = common.middle([sum(run.values()) for run in found[max(depths)]])[0] > LIMIT
    if over:
        print(f"above {LIMIT} s", file=sys.stderr)
    sys.exit(over)


if __name__ == "__main__":
    main()
