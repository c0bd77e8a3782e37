"""From a config to everything a run needs, checked before anything is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from ml_collections import ConfigDict

from vaeflow import data, models, optim, parallel, train
from vaeflow.build import Count, Natural, call
from vaeflow.checkpoint import load_params
from vaeflow.config import plain
from vaeflow.errors import UserError, unknown
from vaeflow.model import Batch, Model, Params


class Eval(NamedTuple):
    """The section `config.eval`."""

    params: Literal["auto", "best", "last"]
    batch: Count
    k: Count
    chunk: Count


class Experiment(NamedTuple):
    """A checked config and what it builds."""

    config: ConfigDict
    model: Model
    source: data.Source
    devices: parallel.Devices
    train: train.Train
    optim: optim.Optim
    eval: Eval
    tx: optax.GradientTransformation

    @property
    def batch(self) -> int:
        return self.config.data.batch


_SECTIONS = ("seed", "init_from", "fixed_from", "model", "parts", "data", "optim", "train", "eval", "sample", "devices")


def make(config: ConfigDict) -> Experiment:
    """Check every section, load the data, build the model. Every mistake is one UserError; nothing is compiled."""
    for key in config:
        if key not in _SECTIONS:
            raise unknown("config: the key", key, _SECTIONS)
    for key in _SECTIONS:
        if key not in config:
            raise UserError(f"config.{key} is missing")
    call(_top, {k: config[k] for k in ("seed", "init_from", "fixed_from")}, "config")
    training = call(train.Train, plain(config.train), "train")
    evaluation = call(Eval, plain(config.eval), "eval")
    optimiser = call(optim.Optim, plain(config.optim), "optim")
    tx = optim.make(optimiser, training.steps)
    model = models.build_model(config)
    devices = parallel.make(call(parallel.Config, plain(config.devices), "devices"))
    source = data.load(config.data, config.seed)
    devices.slots(config.data.batch)
    _fits(config.model, source, config.data.binarize)
    experiment = Experiment(config, model, source, devices, training, optimiser, evaluation, tx)
    jax.eval_shape(model.init, jax.random.key(0), first_batch(experiment))  # shapes that do not fit together
    return experiment


def _top(*, seed: Natural, init_from: str, fixed_from: str) -> None:
    for key, workdir in (("init_from", init_from), ("fixed_from", fixed_from)):
        if workdir and not (Path(workdir) / "config.json").is_file():
            raise UserError(f"config.{key}={workdir!r} is not a workdir: it has no config.json")


def _fits(model: Mapping[str, Any], source: data.Source, binarize: str) -> None:
    """The model's event and levels are those of the data as the model gets them."""
    event = tuple(source.train.x.shape[1:])
    if "event" in model and tuple(model["event"]) != event:
        raise UserError(f"model.event={tuple(model['event'])} does not fit the data, whose examples have the shape {event}")
    levels = 2 if binarize == "dynamic" else source.levels
    if "levels" in model and model["levels"] != levels:
        raise UserError(f"model.levels={model['levels']} does not fit the data, which have {levels} levels (0: continuous)")
    if model.get("likelihood") == "bernoulli" and levels != 2:
        raise UserError(f"model.likelihood='bernoulli' needs binary data, not {levels} levels: set data.binarize, or use bernoulli_intensities")


def first_batch(experiment: Experiment) -> Batch:
    """The first rows of the training split, grey values binarized as training would see them: what `init` sees."""
    split, config = experiment.source.train, experiment.config.data
    n = min(config.batch, len(split.x))
    batch = {"x": jnp.asarray(np.asarray(split.x[:n]))}
    if split.context is not None:
        batch["context"] = jnp.asarray(np.asarray(split.context[:n]))
    if config.binarize == "dynamic":
        key = jax.random.key(experiment.config.seed)
        batch["x"] = data.binarize_batch(key, batch["x"], experiment.source.levels, jnp.arange(n))
    return batch


def init_params(experiment: Experiment) -> tuple[Params, frozenset, list[str]]:
    """(initial parameters, paths held fixed, lines that say what came from elsewhere)."""
    config = experiment.config
    params = jax.jit(experiment.model.init)(jax.random.fold_in(jax.random.key(config.seed), 1), first_batch(experiment))
    lines: list[str] = []
    frozen: frozenset = frozenset()
    if config.init_from:
        params, taken = _overlay(params, config.init_from, "init_from")
        lines.append(f"init_from={config.init_from}: {len(taken)} of {len(traverse_util.flatten_dict(params))} arrays")
    if config.fixed_from:
        params, frozen = _overlay(params, config.fixed_from, "fixed_from")
        lines.append(f"fixed_from={config.fixed_from}: {len(frozen)} arrays stay as they are")
    return params, frozen, lines


def _overlay(params: Params, workdir: str, key: str) -> tuple[Params, frozenset]:
    """params with every array that the other workdir has at the same path; a path with another shape is an error."""
    mine, other = traverse_util.flatten_dict(params), traverse_util.flatten_dict(load_params(workdir))
    common = frozenset(path for path in mine if path in other)
    if not common:
        raise UserError(
            f"config.{key}={workdir!r} has no parameters in common with this model: it has {_names(other)}; this model {_names(mine)}"
        )
    for path in common:
        if mine[path].shape != other[path].shape:
            raise UserError(f"config.{key}={workdir!r}: {'/'.join(path)} has the shape {other[path].shape}, here {mine[path].shape}")
    return traverse_util.unflatten_dict({p: jnp.asarray(other[p]) if p in common else a for p, a in mine.items()}), common


def _names(flat: Mapping[tuple[str, ...], Any]) -> str:
    return ", ".join(sorted({path[0] for path in flat}))
