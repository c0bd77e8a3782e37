"""--dry_run: what a config would train, without training it."""

from __future__ import annotations

import jax
import numpy as np
from flax import traverse_util

from vaeflow import train
from vaeflow.config import plain
from vaeflow.experiment import Experiment, first_batch, init_params
from vaeflow.flops import flops
from vaeflow.model import by_path, split_params
from vaeflow.report import table


def report(x: Experiment) -> str:
    """The resolved config, every parameter, the FLOPs of one step and the memory that it takes.

    The FLOPs are vaeflow/flops.py's, not XLA's cost_analysis: that one counts the body of a scan once.
    """
    lines = ["config"]
    for key, value in traverse_util.flatten_dict(plain(x.config), sep=".").items():
        lines.append(f"  --config.{key}={value}")
    params, frozen, notes = init_params(x)
    kinds = ("trained", "stats", "fixed")
    rows, totals = [], dict.fromkeys(kinds, 0)
    for kind, tree in zip(kinds, split_params(params, frozen), strict=True):
        for path, leaf in by_path(tree).items():
            rows.append(["/".join(path), str(tuple(leaf.shape)), str(leaf.dtype), leaf.size, kind])
            totals[kind] += leaf.size
    lines += ["", table(["parameter", "shape", "dtype", "number", "kind"], rows)]
    lines += ["", "parameters: " + ", ".join(f"{n:,} {kind}" for kind, n in totals.items()), *notes]

    state, fixed = train.init_state(params, x.tx, x.optim.ema, frozen)
    step = jax.jit(train.make_step(x.model, x.tx, x.optim.ema), donate_argnums=0)
    args = (state, fixed, first_batch(x), jax.random.key(0))
    memory, mflop = step.lower(*args).compile().memory_analysis(), flops(step, *args) / 1e6
    split = sum(np.asarray(a).nbytes for a in (x.source.train.x, x.source.train.context) if a is not None)
    lines.append(f"one step of {x.batch} examples on one {jax.devices()[0].device_kind}: {mflop:,.1f} MFLOP")
    if memory is not None:
        temporary = memory.temp_size_in_bytes / 1e6
        step_mb = memory.argument_size_in_bytes / 1e6 + temporary
        lines.append(f"memory: {step_mb:,.1f} MB in the step, {temporary:,.1f} MB of it temporary; training split {split / 1e6:,.1f} MB")
    lines.append(
        f"devices: {x.devices.count} as {x.devices.mapping}; {x.train.steps} steps of {x.batch // x.devices.count} examples on each"
    )
    return "\n".join(lines)
