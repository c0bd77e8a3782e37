"""What older versions of config.json and their parameters are called today.

    version 1    (no key `version`) The objective of a VAE is keys of the section model: `objective`, `samples`, `beta`, `free_bits`, ...
                 Its critic and the baseline of a discrete VAE are parameters at the top. A model that a contrastive prior or a distilled
                 flow learns from may be a part, its parameters params["fixed"].
    version 2    Objectives and schedules are parts. A model that is learned from is the group of a Frozen argument.

A run of an older version can be evaluated, sampled, encoded and loaded. Its config.json is not rewritten.

To add a version: raise VERSION, and write one function for configs and one for parameters that lead to it from the version before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vaeflow.config import OF_FROZEN, is_frozen
from vaeflow.errors import UserError

VERSION = 2
Values = dict[str, Any]

# Keys that version 1 got while it was in use, by section ("": none), with the value that runs without the key used.
ADDED: dict[str, Values] = {
    "": {"profile": False},
    "train": {"accumulate": 1},
    "data": {"levels": 0, "augment": [], "x": {}, "x0": {}, "pairing": "rows"},
    "optim": {"groups": {}, "turns": []},
    "eval": {"measures": [], "settings": {}, "examples": 0, "select": "loss", "validate": {}},
}
_BETA = {"beta": 1.0, "beta_schedule": "constant", "beta_start": 0.0, "beta_steps": 0, "beta_ramp": 0.5}
_BOUND = _BETA | {"objective": "elbo", "alpha": 0.0, "samples": 1}
_PENALTIES = {"free_bits": 0.0, "capacity": 0.0, "capacity_steps": 0, "tc": 0.0, "mmd": 0.0, "adversarial": 0.0, "critic": ""}
_PHASES = {"wake_q": False, "sleep_q": False}
_RELAXED = {"relaxation": 0.0, "relaxation_start": 0.0, "relaxation_steps": 0}
# Keys of the section model that became parts, by family, with the values that mean "off".
_KEYS: dict[str, Values] = {
    "vae": _BOUND | _PENALTIES | {"kl": "auto"},
    "layered": _BOUND,
    "ladder": _BETA | {"samples": 1, "free_bits": 0.0},
    "discrete_vae": _BETA | _PHASES | _RELAXED | {"estimator": "reinforce", "samples": 1, "baseline": ""},
}
# Parameters at the top that moved to params["objective"], by family.
_MOVED = {"vae": "critic", "discrete_vae": "baseline"}
# The argument of a family for the model that it learns from.
_LEARNS_FROM = {"contrastive": "frozen", "distill": "teacher"}


def version_of(config: Mapping[str, Any]) -> int:
    """The version of a stored config.

    Args:
        config: the values of a config.json.

    Returns:
        1 .. VERSION; 1 for a config without the key.

    Raises:
        UserError: the version is newer than VERSION, or it is not a number of a version.
    """
    found = config.get("version", 1)
    if type(found) is not int or found < 1:
        raise UserError(f"version={found!r} is invalid; it must be an integer >= 1")
    if found > VERSION:
        raise UserError(f"config version {found} is newer than {VERSION}, the newest that this vaeflow reads: update vaeflow")
    return found


def upgrade(config: Values) -> Values:
    """A stored config with the keys of today.

    Args:
        config: the values of a config.json, of any version up to VERSION. It is not changed.

    Returns:
        The config with version=VERSION; `config` itself where it has that version.

    Raises:
        UserError: see `version_of`.

    Example:
        upgrade({"model": {"kind": "ladder", "samples": 2, ...}, "parts": {}})
        # {"version": 2, "model": {"kind": "ladder", "objective": "objective", ...}, "parts": {"objective": {"kind": "elbo", "k": 2, ...}}}
    """
    for version in range(version_of(config), VERSION):
        config = {"version": version + 1} | _CONFIGS[version](config) | {"version": version + 1}
    return config


def upgrade_params(config: Values, params: Any) -> Any:
    """Stored parameters at the paths of today.

    Args:
        config: the values of the config.json that was stored with them, of any version up to VERSION.
        params: a tree of trained, stats or fixed leaves, of their moving average, or of all of them. It is not changed.

    Returns:
        The same leaves in the tree of today's model; `params` itself where the config has the version VERSION.

    Raises:
        UserError: see `version_of`.
    """
    for version in range(version_of(config), VERSION):
        params = _PARAMS[version](config, params)
        config = _CONFIGS[version](config) | {"version": version + 1}
    return params


def _config_to_2(config: Values) -> Values:
    config = _with_added(config)
    if not _builds(config):  # a damaged file: its error is that of any config
        return config
    return _objectives(_groups(config))


def _params_to_2(config: Values, params: Any) -> Any:
    if not _builds(config):
        return params
    argument, params = _LEARNS_FROM.get(config["model"].get("kind")), dict(params)
    if _is_part(config) and "fixed" in params:
        params["fixed"] = {argument: params["fixed"]}
    return _objective_params(_groups(config), params)


# By the version that they start from.
_CONFIGS: dict[int, Callable[[Values], Values]] = {1: _config_to_2}
_PARAMS: dict[int, Callable[[Values, Any], Any]] = {1: _params_to_2}


def _builds(sections: Any) -> bool:
    """True if these are the sections that build a model."""
    groups = isinstance(sections, Mapping) and all(isinstance(sections.get(name), Mapping) for name in ("model", "parts", "sample"))
    return groups and isinstance(sections["model"].get("kind"), str)


def _with_added(config: Values) -> Values:
    """The config with the keys of ADDED."""
    found = ADDED[""] | config
    for section, values in ADDED.items():
        if section and isinstance(config.get(section), Mapping):
            found[section] = values | config[section]
    return copy.deepcopy(found)


def _is_part(config: Values) -> bool:
    """True if the model that a config's model learns from is a part, or is made of parts."""
    model, parts = config["model"], config["parts"]
    named = model.get(_LEARNS_FROM.get(model["kind"], ""))
    if not isinstance(named, str):
        return False
    return "teacher_base" in model if model["kind"] == "distill" else isinstance(parts.get(named), Mapping)


def _groups(config: Values) -> Values:
    """The config with the group of a Frozen argument in place of the part that a model learns from. The run has its parameters: they need
    no hash."""
    if not _is_part(config):
        return config
    model, parts, sample = dict(config["model"]), dict(config["parts"]), {"n": config["sample"].get("n", 64), "temperature": 1.0}
    event, levels = model.pop("event", ()), model.pop("levels", 0)
    argument = _LEARNS_FROM[model["kind"]]
    if model["kind"] == "distill":
        own = {"kind": "flow", "event": event, "levels": levels, "layer": model["teacher"], "base": model.pop("teacher_base")}
        own |= {"dequantize": model.pop("dequantize", "none"), "dequantizer": "", "flatten": model.get("flatten", False)}
    else:
        own = dict(parts.pop(model["frozen"]))
        sample["temperature"] = own.pop("temperature", 1.0)
    sections = {"model": own, "parts": parts, "sample": sample}
    model[argument] = {"from": config.get("fixed_from", ""), **OF_FROZEN, "sha256": "", "config": sections}
    return config | {"model": model, "parts": parts, "fixed_from": ""}


def _models_within(sections: Values) -> Iterator[tuple[str, str, Values]]:
    """(section, argument, group) of the Frozen arguments of a model."""
    for section in ("model", "sample"):
        for name, value in sections[section].items():
            if is_frozen(value) and _builds(value.get("config")):
                yield section, name, value


def _objectives(sections: Values) -> Values:
    """The sections that build a model with its objective as a part, and so the models within."""
    model, parts = dict(sections["model"]), dict(sections["parts"])
    if keys := _KEYS.get(model["kind"]):
        own = {key: model.pop(key, default) for key, default in keys.items()}
        model["objective"] = _estimator(own, parts) if "estimator" in own else _objective(own, parts)
    found = sections | {"model": model, "parts": parts}
    for section, name, group in _models_within(sections):
        found[section] = found[section] | {name: group | {"config": _objectives(group["config"])}}
    return found


def _objective_params(sections: Values, params: Any) -> Any:
    """The parameters of a model with those of its objective in params["objective"], and so those of the models within."""
    own = _MOVED.get(sections["model"]["kind"])
    if own in params:
        params = {name: value for name, value in params.items() if name != own} | {"objective": {own: params[own]}}
    for _, name, group in _models_within(sections):
        if group.get("train"):
            params = params | {name: _objective_params(group["config"], params[name])} if name in params else params
        elif name in params.get("fixed", {}):
            params = params | {"fixed": params["fixed"] | {name: _objective_params(group["config"], params["fixed"][name])}}
    return params


def _add(parts: Values, name: str, part: Values) -> str:
    """Add a part; its name, which is `name` or one like it where that is taken."""
    free, number = name, 1
    while free in parts:
        number += 1
        free = f"{name}_{number}"
    parts[free] = part
    return free


def _weight(own: Values, parts: Values) -> dict[str, Any]:
    """The weight of the KL term: a number, or the name of a schedule."""
    if own["beta_schedule"] == "constant":
        return {"beta": own["beta"]}
    part = {"kind": own["beta_schedule"], "steps": own["beta_steps"], "start": own["beta_start"], "end": own["beta"]}
    return {"beta": _add(parts, "beta", part | ({"ramp": own["beta_ramp"]} if own["beta_schedule"] == "cyclical" else {}))}


def _objective(own: Values, parts: Values) -> str:
    """The name of a VAE's objective, which is added to the parts."""
    kind, k = own.get("objective", "elbo"), {"k": own["samples"]}
    if kind == "elbo":
        part: Values = {"kind": "elbo", **k, **_weight(own, parts), "kl": own.get("kl", "auto")}
        if own.get("capacity"):
            part |= {"kind": "capacity", "nats": own["capacity"], "steps": own["capacity_steps"]}
        elif own.get("free_bits"):
            part |= {"kind": "free_bits", "nats": own["free_bits"]}
    else:
        part = {"kind": kind, **k, **({"alpha": own["alpha"]} if kind == "renyi" else {})}
    for name in ("tc", "mmd", "adversarial"):
        if own.get(name):
            outer = {"kind": name, "weight": own[name], **({"critic": own["critic"]} if name == "adversarial" else {})}
            part = outer | {"of": _add(parts, str(part["kind"]), part)}
    return _add(parts, "objective", part)


def _estimator(own: Values, parts: Values) -> str:
    """The name of a discrete VAE's objective, which is added to the parts."""
    kind, part = own["estimator"], {"k": own["samples"]}
    if kind in ("vimco", "wake_sleep"):
        return _add(parts, "objective", {"kind": kind, **part, **({name: own[name] for name in _PHASES} if kind == "wake_sleep" else {})})
    part |= _weight(own, parts)
    if kind in ("reinforce", "reinforce_baseline"):
        return _add(parts, "objective", {"kind": "reinforce", **part, "baseline": own["baseline"]})
    if kind in ("gumbel_softmax", "straight_through"):
        part["temperature"] = own["relaxation"]
        if own["relaxation_steps"]:
            annealed = {"kind": "geometric", "steps": own["relaxation_steps"], "start": own["relaxation_start"], "end": own["relaxation"]}
            part["temperature"] = _add(parts, "temperature", annealed)
    return _add(parts, "objective", {"kind": kind, **part})
