"""A run that begins with another run's parameters: `init_from` starts from them, `fixed_from` keeps them as they are.

Parameters are taken wherever the paths of both models agree. A whole other model (a teacher, a VAE below a second stage) is a Frozen
argument instead, see frozen.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import traverse_util
from ml_collections import ConfigDict

from vaeflow.errors import UserError, unknown
from vaeflow.model import Params, by_path, common, merge_params
from vaeflow.runs.checkpoint_reader import Say, all_steps, committed_steps, load_newest, to_stderr
from vaeflow.runs.workdir import upgraded_params

KEYS = ("init_from", "fixed_from")
UNNAMED = "sha256:"  # what a config calls parameters without a lasting workdir, before their hash: a notebook gives them


def are_workdirs(config: ConfigDict, held: Mapping[str, Params]) -> None:
    """UserError: init_from or fixed_from names no workdir, and its parameters are not in `held`."""
    for key in KEYS:
        workdir: Any = config[key]
        if key in held or not workdir:
            continue
        if workdir.startswith(UNNAMED):
            raise UserError(f"config.{key}={workdir!r} are parameters of a run in a notebook, which had no workdir to last: give a workdir")
        if not (Path(workdir).expanduser() / "config.json").is_file():
            raise UserError(f"config.{key}={workdir!r} is not a workdir: it has no config.json")


def given(shapes: Params, config: ConfigDict, held: Mapping[str, Params]) -> tuple[Params, frozenset, list[str]]:
    """(what `Model.init` gets as `given`, paths held fixed, lines to print): the parameters that init_from and fixed_from name.

    Args:
        shapes: the parameters of this config's model or their shapes.
        held: {init_from or fixed_from: its parameters}, where a notebook has them; the others are read from their workdirs.

    Raises:
        UserError: the other run has no checkpoint, no parameter in common with this model or one of another shape.
    """
    taken: dict[tuple[str, ...], Any] = {}
    frozen: frozenset = frozenset()
    lines: list[str] = []
    if config.init_from:
        taken = _taken(shapes, config, "init_from", held)
        lines.append(f"init_from={config.init_from}: {len(taken)} of {len(by_path(shapes))} arrays")
    if config.fixed_from:
        kept = _taken(shapes, config, "fixed_from", held)
        taken, frozen = taken | kept, frozenset(kept)
        lines.append(f"fixed_from={config.fixed_from}: {len(frozen)} arrays stay as they are")
    return traverse_util.unflatten_dict(taken), frozen, lines


def _taken(shapes: Params, config: ConfigDict, key: str, held: Mapping[str, Params]) -> dict[tuple[str, ...], Any]:
    """Every array of the other workdir at whose path this model has one too; another shape is an error."""
    workdir = config[key]
    try:
        other = held[key] if key in held else load_params(Path(workdir).expanduser())
    except UserError as error:
        raise UserError(f"config.{key}={workdir!r}: {error}") from None
    try:
        taken = common(shapes, other)
    except UserError as error:
        raise UserError(f"config.{key}={workdir!r}: {error}") from None
    if not taken:
        names = f"it has {', '.join(sorted(other))}; this model {', '.join(sorted(shapes))}"
        raise UserError(f"config.{key}={workdir!r} has no parameters in common with this model: {names}")
    return taken


def load_params(workdir: str | Path, which: str = "auto", warn: Say = to_stderr, ema: bool = True) -> Params:
    """The parameters that evaluation uses (the moving average where there is one, stats, fixed) as numpy arrays, at the paths of today's
    model whatever version trained them.

    which: "best", "last", or "auto" for the best where there is one. ema=False: those of the step itself. UserError: there is no such
    checkpoint.
    """
    if which not in ("auto", "best", "last"):
        raise unknown("eval.params", which, ("auto", "best", "last"))
    root = Path(workdir).absolute() / "checkpoints"
    for name in ("best", "last") if which == "auto" else (which,):
        found = load_newest(root / name, warn)
        if found is None:
            continue
        fixed = load_newest(root / "fixed", warn)
        if fixed is None and all_steps(root / "fixed"):
            raise UserError(f"the fixed leaves of this run are damaged ({root / 'fixed'}); it must be trained again")
        state = found.state
        params = merge_params((ema and state["ema"]) or state["trained"], state["stats"], fixed.state if fixed else {})
        return upgraded_params(Path(workdir), params)
    have = " and ".join(name for name in ("best", "last") if committed_steps(root / name)) or "none yet: train first"
    raise UserError(f"workdir={workdir} has no checkpoint for eval.params={which!r}; there is {have}")
