"""Where a run begins: at the newest checkpoint of its own workdir, or at the initial parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax import ShapeDtypeStruct

from vaeflow.model import Params, by_path
from vaeflow.runs.checkpoint_writer import Checkpoints, restore_fixed, save_fixed, stored_fixed
from vaeflow.training import step
from vaeflow.training.setup import Experiment, first_batch, init_params

Say = Callable[[str], None]


def restore_or_init(
    x: Experiment, directory: Path, last: Checkpoints, best: Checkpoints, say: Say
) -> tuple[step.State, Params, dict[str, Any] | None]:
    """(state, fixed leaves, the checkpoint's `progress` or None for a new run)."""
    found = restore(x, directory, last, say) if last.latest() is not None else None
    if found is not None:
        state, fixed, progress = found
        best.delete_after(int(state.step))  # what came after is computed again, bit for bit
        say(f"resuming from step {int(state.step)} of {x.train.steps}")
        return x.devices.place(state), fixed, progress
    params, frozen, lines = init_params(x)
    for line in lines:
        say(line)
    state, fixed = step.init_state(params, x.tx, x.optim.ema, frozen, x.devices.homes)
    best.delete_after(-1)
    save_fixed(directory, fixed)
    return x.devices.place(state), fixed, None


def restore(x: Experiment, directory: Path, last: Checkpoints, say: Say) -> tuple[step.State, Params, dict[str, Any]] | None:
    """The newest checkpoint that verifies, from the workdir alone: nothing is compiled, `init_from` and `fixed_from` are not read."""
    frozen = frozenset(by_path(stored_fixed(directory, say)))

    def init():
        return step.init_state(x.model.init(jax.random.key(0), first_batch(x)), x.tx, x.optim.ema, frozen)

    state, fixed = jax.eval_shape(init)
    home = x.devices.home
    found = last.restore(jax.tree.map(lambda s: ShapeDtypeStruct(s.shape, s.dtype, sharding=home(s.shape)), state), warn=say)
    if found is None:
        return None
    return found[1], restore_fixed(directory, fixed, say), found[2]
