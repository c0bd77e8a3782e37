"""What several benchmarks time: training steps as `experiments.train` takes them, on noise of the config's shape."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.peers.process import measure
from vaeflow import data
from vaeflow.training import loop, setup, step
from vaeflow.training.flops import flops

STEPS = 8  # of one dispatch


class Took(NamedTuple):
    """Milliseconds of a step; seconds of the first dispatch, which compiles; 10^9 operations of a step, 3 times those of the loss."""

    ms: float
    first: float
    gflop: float


def made_of(c: ConfigDict, examples: int = 4096) -> setup.Experiment:
    """The experiment; on noise where its data may not be at hand: of the model's event and levels, or else of MNIST's."""
    c.train.max_dispatch = STEPS  # a chunk has no more room than is timed: else its copy to the device is
    if c.data.kind in ("digits", "density"):
        return setup.make_experiment(c)
    rng, named = np.random.default_rng(0), "event" in c.model
    shape = (max(examples, c.data.batch), *(c.model.event if named else (28, 28, 1)))
    levels = c.model.get("levels", 0) if named else 256
    levels = 256 if c.data.binarize == "dynamic" else levels
    x: Any = rng.integers(0, levels, shape, dtype=np.uint8) if levels else rng.normal(size=shape).astype(np.float32)
    split = data.Split(x)
    return setup.make_experiment(c, None, data.Source(split, split, split, levels))


def trained(x: setup.Experiment, seconds: float = 1.0) -> Took:
    """What a training step takes: the median of whole dispatches."""
    params, frozen, _ = setup.init_params(x)
    state, fixed = step.init_state(params, x.tx, x.optim.ema, frozen, x.devices.homes)
    batch, key = setup.first_batch(x), jax.random.key(0)
    gflop = 3e-9 * flops(lambda p, b: x.model.loss(p, key, b, 0)[0], params, batch)
    with tempfile.TemporaryDirectory() as folder:
        feed, shared, dispatch = loop._Loop(x, Path(folder)).program(fixed)
        held = [x.devices.place(state)]
        shared = shared._replace(count=x.devices.replicate(np.int32(STEPS)))

        def steps():
            held[0], log = dispatch(held[0], shared, feed.chunk(0, STEPS))
            np.asarray(log["loss"])

        began = time.perf_counter()
        steps()
        first = time.perf_counter() - began
        return Took(measure(steps, seconds) / STEPS, first, gflop)
