"""--dry_run: what a config would train, without training it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from vaeflow.config import plain
from vaeflow.model import Params, by_path, split_params
from vaeflow.runs import config_values
from vaeflow.runs.metrics import aligned_table
from vaeflow.schema import defaults
from vaeflow.training.flops import flops
from vaeflow.training.optimizer import groups_of
from vaeflow.training.setup import Experiment, first_batch, init_shapes
from vaeflow.training.step import init_state, make_step


def report(x: Experiment, directory: Path | None = None) -> str:
    """The resolved config, every parameter, the FLOPs of one step and the memory that it takes.

    directory: the workdir, where it holds this run already: the runs that this one began with are not opened then.

    The FLOPs are vaeflow/training/flops.py's, not XLA's cost_analysis: that one counts the body of a scan once.
    """
    lines, known = ["config (*: not the default)"], defaults(x.config)
    for key, value in config_values.flat(plain(x.config)).items():
        mark = " " if key in known and known[key] == value else "*"
        lines.append(f"{mark} --config.{key}={config_values.brief(value)}")
    params, frozen, notes = init_shapes(x, directory)
    kinds = ("trained", "stats", "fixed")
    rows, totals = [], dict.fromkeys(kinds, 0)
    for kind, tree in zip(kinds, split_params(params, frozen), strict=True):
        for path, leaf in by_path(tree).items():
            rows.append(["/".join(path), str(tuple(leaf.shape)), str(leaf.dtype), leaf.size, kind])
            totals[kind] += leaf.size
    lines += ["", aligned_table(["parameter", "shape", "dtype", "number", "kind"], rows)]
    lines += ["", "parameters: " + ", ".join(f"{n:,} {kind}" for kind, n in totals.items()), *notes]
    if rows := _groups(x, split_params(params, frozen)[0]):
        header = ["group", "parameters", "number", "optimiser", "rate", "schedule", "clip", "clip_weights", "updated in"]
        lines += ["", aligned_table(header, rows), ""]

    split = sum(np.asarray(a).nbytes for a in x.source.train.arrays().values())
    step = cost(x, params, frozen)
    lines.append(f"one step of {x.batch} examples on one {jax.devices()[0].device_kind}: {step['step_mflop']:,.1f} MFLOP")
    if "step_mb" in step:
        inside = f"{step['step_mb']:,.1f} MB in the step, {step['temporary_mb']:,.1f} MB of it temporary"
        lines.append(f"memory: {inside}; training split {split / 1e6:,.1f} MB")
    lines.append(
        f"devices: {x.devices.count} as {x.devices.mapping}; {x.train.steps} steps of {x.batch // x.devices.count} examples on each"
    )
    return "\n".join(lines)


def _groups(x: Experiment, trained: Params) -> list[list[Any]]:
    """One row per parameter group; none without optim.groups and optim.turns."""
    rows = []
    for group in groups_of(x.tx, trained):
        own, size = x.optim._replace(**group.config.overrides()), sum(leaf.size for leaf in jax.tree.leaves(group.of(trained)))
        names, bounds = " ".join(group.names), ",".join(f"{bound:g}" for bound in group.config.clip_weights)
        turn = f"{group.turns[group.name]} of {sum(group.turns.values())} steps" if group.turns else "every step"
        options = [own.name, f"{own.learning_rate:g}", own.schedule, f"{own.clip:g}" if own.clip else "-", bounds or "-"]
        rows.append([group.name, names, size, *options, turn])
    return rows


def cost(x: Experiment, params: Params, frozen: frozenset = frozenset()) -> dict[str, float]:
    """trained_parameters; of one training step on one device step_mflop; where the compiler tells, step_mb, its arguments (state and batch)
    and what it needs between (temporary_mb), in 10^6 bytes. No step is taken."""
    state, fixed = jax.eval_shape(lambda params: init_state(params, x.tx, x.optim.ema, frozen), params)
    step = jax.jit(make_step(x.model, x.tx, x.optim.ema, accumulate=x.train.accumulate), donate_argnums=0)
    args = (state, fixed, first_batch(x), jax.random.key(0))
    memory, out = step.lower(*args).compile().memory_analysis(), {"step_mflop": flops(step, *args) / 1e6}
    out["trained_parameters"] = sum(leaf.size for leaf in jax.tree.leaves(state.trained))
    if memory is not None:
        temporary = memory.temp_size_in_bytes / 1e6
        out |= {"step_mb": memory.argument_size_in_bytes / 1e6 + temporary, "temporary_mb": temporary}
    return out
