"""A run that begins with another run's parameters: `init_from` starts from them, `fixed_from` keeps them as they are.

A model that learns from another one (a teacher, a VAE below a second stage) has all of that one's parameters below "fixed", and its config
describes that one; fixed_from must name a run of just that model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flax import traverse_util
from ml_collections import ConfigDict

from vaeflow.errors import UserError, unknown
from vaeflow.model import Params, by_path, common, merge_params
from vaeflow.runs.checkpoint_reader import Say, all_steps, committed_steps, load_newest, to_stderr


def are_workdirs(config: ConfigDict) -> None:
    """UserError: init_from or fixed_from names no workdir."""
    for key in ("init_from", "fixed_from"):
        workdir: Any = config[key]
        if workdir and not (Path(workdir).expanduser() / "config.json").is_file():
            raise UserError(f"config.{key}={workdir!r} is not a workdir: it has no config.json")


def given(shapes: Params, config: ConfigDict) -> tuple[Params, frozenset, list[str]]:
    """(what `Model.init` gets as `given`, paths held fixed, lines to print): the parameters that init_from and fixed_from name.

    Args:
        shapes: the parameters of this config's model or their shapes.

    Raises:
        UserError: the other run has no checkpoint, no parameter in common with this model or one of another shape, or is another model
            than the one that this model learns from.
    """
    taken: dict[tuple[str, ...], Any] = {}
    frozen: frozenset = frozenset()
    lines: list[str] = []
    if config.init_from:
        taken = _taken(shapes, config, "init_from")
        lines.append(f"init_from={config.init_from}: {len(taken)} of {len(by_path(shapes))} arrays")
    if config.fixed_from:
        held = _taken(shapes, config, "fixed_from")
        if "fixed" in shapes:
            _same_model(config)
        taken, frozen = taken | held, frozenset(held)
        lines.append(f"fixed_from={config.fixed_from}: {len(frozen)} arrays stay as they are")
    return traverse_util.unflatten_dict(taken), frozen, lines


def _taken(shapes: Params, config: ConfigDict, key: str) -> dict[tuple[str, ...], Any]:
    """Every array of the other workdir at whose path this model has one too; another shape is an error.

    A model that learns from another one has all of that one's parameters below "fixed": only there are they taken from fixed_from.
    """
    workdir = config[key]
    try:
        other = load_params(Path(workdir).expanduser())
    except UserError as error:
        raise UserError(f"config.{key}={workdir!r}: {error}") from None
    if key == "fixed_from" and "fixed" in shapes:
        if missing := sorted(map("/".join, by_path(shapes["fixed"]).keys() - by_path(other).keys())):
            raise _another(config, f"it has no {', '.join(missing[:3])}")
        other = {"fixed": other}
    try:
        taken = common(shapes, other)
    except UserError as error:
        raise UserError(f"config.{key}={workdir!r}: {error}") from None
    if not taken:
        names = f"it has {', '.join(sorted(other))}; this model {', '.join(sorted(shapes))}"
        raise UserError(f"config.{key}={workdir!r} has no parameters in common with this model: {names}")
    return taken


def _same_model(config: ConfigDict) -> None:
    """UserError: the model that this config learns from is not built as the run fixed_from was. Arrays of equal shapes do not show an
    order, a bound or an activation."""
    other = ConfigDict(json.loads((Path(config.fixed_from).expanduser() / "config.json").read_text()))
    for key, mine, theirs in _described(config, other):
        if difference := _difference(mine, theirs, f"model.{key}"):
            raise _another(config, difference)


def _described(config: ConfigDict, other: ConfigDict) -> Iterator[tuple[str, Any, Any]]:
    """(key, here, there) of all that must be equal, as far as both configs have it: a part `frozen` is a whole model, whose keys of
    sampling are free; a teacher is the flow of the other run."""
    here = _whole(config, config.model.get("frozen"))
    pairs = {}
    if isinstance(here, dict):
        yield "frozen", {key: v for key, v in here.items() if key not in other.sample}, _whole(other, other.model)
    elif "teacher" in config.model:
        pairs = {"teacher": "layer", "teacher_base": "base", "flatten": "flatten"}
    for mine, theirs in (pairs | {"event": "event", "levels": "levels"}).items():
        if mine in config.model and theirs in other.model:
            yield mine, _whole(config, config.model[mine]), _whole(other, other.model[theirs])


def _whole(config: ConfigDict, value: Any, name: str = "") -> Any:
    """A value with the parts that it names, and those that they name, in place of their names. name: of the part whose value it is."""
    if isinstance(value, ConfigDict):
        return {key: v if key == "kind" or v == name else _whole(config, v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_whole(config, v) for v in value]
    return _whole(config, config.parts[value], value) if isinstance(value, str) and value in config.parts else value


def _difference(mine: Any, theirs: Any, key: str) -> str:
    """The first difference of two such values as `key is ... here and ... there`; "" for none."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        pairs = [(f"{key}.{k}", mine.get(k, "missing"), theirs.get(k, "missing")) for k in dict.fromkeys(["kind", *mine, *theirs])]
    elif isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        pairs = [(f"{key}[{i}]", *pair) for i, pair in enumerate(zip(mine, theirs, strict=True))]
    else:
        return "" if mine == theirs else f"{key} is {mine!r} here and {theirs!r} there"
    return next((d for name, a, b in pairs if (d := _difference(a, b, name))), "")


def _another(config: ConfigDict, why: str) -> UserError:
    what = "teacher" if "teacher" in config.model else "frozen model"
    return UserError(f"config.fixed_from={config.fixed_from!r} is another model than the {what} of this one: {why}")


def load_params(workdir: str | Path, which: str = "auto", warn: Say = to_stderr) -> Params:
    """The parameters that evaluation uses (the moving average where there is one, stats, fixed) as numpy arrays.

    which: "best", "last", or "auto" for the best where there is one. UserError: there is no such checkpoint.
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
        return merge_params(state["ema"] or state["trained"], state["stats"], fixed.state if fixed else {})
    have = " and ".join(name for name in ("best", "last") if committed_steps(root / name)) or "none yet: train first"
    raise UserError(f"workdir={workdir} has no checkpoint for eval.params={which!r}; there is {have}")
