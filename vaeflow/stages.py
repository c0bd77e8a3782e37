"""A run that begins with another run's parameters: `init_from` starts from them, `fixed_from` keeps them as they are.

A model that learns from another one (a teacher, a VAE below a second stage) has all of that one's parameters below "fixed", and its config
describes that one; fixed_from must name a run of just that model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import traverse_util
from ml_collections import ConfigDict

from vaeflow.errors import UserError
from vaeflow.model import Params
from vaeflow.stored import load_params


def are_workdirs(config: ConfigDict) -> None:
    """UserError: init_from or fixed_from names no workdir."""
    for key in ("init_from", "fixed_from"):
        workdir: Any = config[key]
        if workdir and not (Path(workdir).expanduser() / "config.json").is_file():
            raise UserError(f"config.{key}={workdir!r} is not a workdir: it has no config.json")


def from_elsewhere(params: Params, config: ConfigDict) -> tuple[Params, frozenset, list[str]]:
    """(params with what init_from and fixed_from name in place, paths held fixed, lines that say so) of initial parameters, or of their
    shapes."""
    lines: list[str] = []
    frozen: frozenset = frozenset()
    if config.init_from:
        params, taken = _overlay(params, config, "init_from")
        lines.append(f"init_from={config.init_from}: {len(taken)} of {len(traverse_util.flatten_dict(params))} arrays")
    if config.fixed_from:
        learns_from = "fixed" in params
        params, frozen = _overlay(params, config, "fixed_from")
        if learns_from:
            _same_model(config)
        lines.append(f"fixed_from={config.fixed_from}: {len(frozen)} arrays stay as they are")
    return params, frozen, lines


def _overlay(params: Params, config: ConfigDict, key: str) -> tuple[Params, frozenset]:
    """params with every array that the other workdir has at the same path; a path with another shape is an error.

    A model that learns from another one has all of that one's parameters below "fixed": only there are they taken from fixed_from.
    """
    workdir = config[key]
    try:
        other: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(load_params(Path(workdir).expanduser()))
    except UserError as error:
        raise UserError(f"config.{key}={workdir!r}: {error}") from None
    mine: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(params)
    if key == "fixed_from" and "fixed" in params:
        other = {("fixed", *path): leaf for path, leaf in other.items()}
        if missing := sorted("/".join(path[1:]) for path in mine if path[0] == "fixed" and path not in other):
            raise _another(config, f"it has no {', '.join(missing[:3])}")
    common = frozenset(path for path in mine if path in other)
    if not common:
        raise UserError(
            f"config.{key}={workdir!r} has no parameters in common with this model: it has {_names(other)}; this model {_names(mine)}"
        )
    for path in common:
        if mine[path].shape != other[path].shape:
            raise UserError(f"config.{key}={workdir!r}: {'/'.join(path)} has the shape {other[path].shape}, here {mine[path].shape}")
    return traverse_util.unflatten_dict({p: jnp.asarray(other[p]) if p in common else a for p, a in mine.items()}), common


def _same_model(config: ConfigDict) -> None:
    """UserError: the model that this config learns from is not built as the run fixed_from was. Arrays of equal shapes do not show an
    order, a bound or an activation."""
    other = ConfigDict(json.loads((Path(config.fixed_from).expanduser() / "config.json").read_text()))
    for key, mine, theirs in _described(config, other):
        if difference := _difference(mine, theirs, f"model.{key}"):
            raise _another(config, difference)


def _described(config: ConfigDict, other: ConfigDict) -> Iterator[tuple[str, Any, Any]]:
    """(key, here, there) of all that must be equal: `frozen` names a whole model, whose keys of sampling are free; a teacher is the flow of
    the other run."""
    if "frozen" in config.model:
        here = _whole(config, config.model.frozen)
        yield "frozen", {key: v for key, v in here.items() if key not in other.sample}, _whole(other, other.model)
        pairs = {}
    else:
        pairs = {"teacher": "layer", "teacher_base": "base", "flatten": "flatten"}
    for mine, theirs in (pairs | {"event": "event", "levels": "levels"}).items():
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
    what = "frozen model" if "frozen" in config.model else "teacher"
    return UserError(f"config.fixed_from={config.fixed_from!r} is another model than the {what} of this one: {why}")


def _names(flat: Mapping[tuple[str, ...], Any]) -> str:
    return ", ".join(sorted({path[0] for path in flat}))
