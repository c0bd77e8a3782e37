"""Frozen arguments: models of other runs as arguments of this one's (a teacher, an autoencoder, a VAE below a second stage).

A config names such a model by its workdir, by a config row (untrained: for --dry_run and tests), or by the group

    {from, which, ema, train}    and, filled in here,    {sha256, config}

    from     the workdir or the config row
    which    auto (the best checkpoint where there is one), best, last
    ema      whether the averaged parameters are taken, where the run has them
    train    whether they are trained on, from there
    sha256   of the parameters: which model it is, wherever its workdir has moved; "" of a config row
    config   the sections model, parts and sample that build it

The group is stored in config.json in place of the name and the parameters are stored with the run, so that resuming, loading and evaluating
never open `from`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vaeflow import models
from vaeflow.config import OF_FROZEN, is_frozen, plain
from vaeflow.errors import UserError
from vaeflow.model import Frozen, Params, by_path, merge_params
from vaeflow.runs import workdir
from vaeflow.runs.checkpoint_reader import committed_steps
from vaeflow.training.configure import load
from vaeflow.training.warm_start import load_params


def resolved(config: ConfigDict, directory: Path | None = None) -> ConfigDict:
    """The locked config with the whole group in place of each Frozen argument; `config` itself if it has none to resolve.

    Args:
        directory: the run's workdir. Where it holds a checkpoint of the run, a model that is named as it was there is taken from its
            config.json and its own workdir is not opened.

    Raises:
        UserError: a name is neither a workdir with a checkpoint nor a config row; a group has another key or a wrong value.
    """
    found = {}
    for section, name in models.frozen_arguments(config):
        key, value = f"{section}.{name}", config[section][name]
        if value == "" or (is_frozen(value) and value["from"] == "" and not value.get("config")):
            found[key] = ""
        elif is_frozen(value) and value.get("config"):
            models.check_group(key, plain(value))
        else:
            found[key] = _group(key, value, _stored(directory, section, name))
    values = config.to_dict()
    for key, group in found.items():
        section, name = key.split(".")
        values[section][name] = group
    return ConfigDict(values).lock() if found else config


def _stored(directory: Path | None, section: str, name: str) -> Any:
    """The group that the run in the directory has; None: it has none, or no checkpoint yet, so that the parameters are not stored."""
    if directory is None or not committed_steps(directory / "checkpoints" / "last"):
        return None
    value = plain(workdir.read_config(directory).get(section, {}).get(name))
    if not is_frozen(value):
        return None
    models.check_group(f"{section}.{name}", value)
    return value


def _group(key: str, value: Any, stored: Any) -> dict[str, Any]:
    """The whole group of the value of a Frozen argument."""
    if not isinstance(value, str | Mapping | ConfigDict):
        raise UserError(
            f"{key}={value!r} has the wrong type; it must be a workdir, a config row, or a group of from, {', '.join(OF_FROZEN)}"
        )
    asked = {"from": "", **OF_FROZEN, **({"from": value} if isinstance(value, str) else plain(value))}
    asked = {name: asked[name] for name in asked if name not in ("sha256", "config")}
    models.check_group(key, asked | {"sha256": "", "config": {section: {} for section in models.BUILDING}})
    if stored is not None and all(stored[name] == own for name, own in asked.items()):
        return stored
    place = asked["from"]
    if place.partition(":")[0].endswith(".py"):
        own, sha256 = resolved(load(place)), ""
    else:
        if not (Path(place).expanduser() / "config.json").is_file():
            raise UserError(f"{key}={place!r} is neither a workdir (it has no config.json) nor a config row such as configs/x.py:row")
        own = workdir.read_config(Path(place).expanduser())  # data: what it names itself is neither opened nor executed
        for section, name in models.frozen_arguments(own):
            if own[section][name] != "":
                models.check_group(f"{section}.{name} of {place}", plain(own[section][name]))
        sha256 = fingerprint(_load(key, asked))
    return asked | {"sha256": sha256, "config": {section: plain(own[section]) for section in models.BUILDING}}


def _load(key: str, group: Mapping[str, Any]) -> Params:
    """The parameters that a group names, from its workdir."""
    try:
        return load_params(Path(group["from"]).expanduser(), group["which"], ema=group["ema"])
    except UserError as error:
        raise UserError(f"{key}={group['from']!r}: {error}") from None


def fingerprint(params: Params) -> str:
    """SHA-256 over paths, types, shapes and bytes of all leaves: the same for the same parameters, however they are stored."""
    digest = hashlib.sha256()
    for path, leaf in sorted(by_path(params).items()):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{'/'.join(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _groups(config: Any) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(config key, argument, group) of the Frozen arguments that name a model."""
    for section, name in models.frozen_arguments(config):
        if config[section][name] != "":
            yield f"{section}.{name}", name, config[section][name]


def identities(config: ConfigDict) -> dict[str, str]:
    """{config key: hash of the parameters} of the Frozen arguments of a resolved config."""
    return {key: group["sha256"] for key, _, group in _groups(config)}


def parameters(config: ConfigDict) -> tuple[Params, list[str]]:
    """(what `Model.init` gets as `given`, lines to print) of the Frozen arguments of a resolved config; config rows give nothing.

    Raises:
        UserError: the parameters in the workdir are no longer those that the config was resolved with.
    """
    taken: list[Params] = []
    lines = []
    for key, name, group in _groups(config):
        if not group["sha256"]:
            continue
        params = _load(key, group)
        if fingerprint(params) != group["sha256"]:
            raise UserError(f"{key}={group['from']!r} has other parameters now than when this config was made")
        taken.append(Frozen(models.frozen_model(key, group), name, group["train"]).put(params))
        how = "are trained on" if group["train"] else "stay as they are"
        lines.append(f"{key}={group['from']}: {len(by_path(params))} arrays {how}")
    return merge_params(*taken), lines
