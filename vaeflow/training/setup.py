"""From a config to everything a run needs, checked before anything is compiled."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaeflow import data, models, rng
from vaeflow.build import call
from vaeflow.config import VALUES, check_sections, data_name, is_frozen, plain
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Batch, Model, Params, by_path, merge_params, split_params
from vaeflow.runs import progress
from vaeflow.runs.checkpoint_reader import committed_steps, to_stderr
from vaeflow.runs.checkpoint_writer import stored_fixed
from vaeflow.schema import complete
from vaeflow.training import frozen, warm_start
from vaeflow.training.configure import EvalConfig, RunConfig, SampleConfig
from vaeflow.training.dependence import reads
from vaeflow.training.devices import Devices, DevicesConfig, make_devices
from vaeflow.training.optimizer import OptimConfig, make_optimizer
from vaeflow.training.step import TrainConfig


class Experiment(NamedTuple):
    """A checked config and what it builds."""

    config: ConfigDict
    model: Model
    source: data.Source
    devices: Devices
    train: TrainConfig
    optim: OptimConfig
    eval: EvalConfig
    tx: optax.GradientTransformation
    parameters: int = 0  # trained ones
    held: Mapping[str, Params] = {}  # parameters that init_from and fixed_from name, where a notebook has them

    @property
    def batch(self) -> int:
        return self.config.data.batch

    @property
    def validates(self) -> bool:
        """True if there is a validation split and the model has a number for it."""
        known = any(part is not None for part in (self.model.log_prob, self.model.latent, self.model.terms))
        return self.source.val is not None and (known or self.eval.select != "loss")


def _players(model: Model, config: ConfigDict) -> None:
    """UserError: the model needs a group of the optimiser that clips its parameters, and the config has none."""
    for key, value in model.optim:
        _, group, name = key.split(".") if key.startswith("groups.") else ("", "", key)
        if name == "clip_weights" and not plain(config.optim.groups).get(group, {}).get(name):
            raise UserError(f"optim.{key} is missing: this objective is not bounded without it; set it, as to {tuple(value)}")


# Options that a data kind ignores, though they change the data of others. Setting one is an error. (A folder may be set for all.)
_UNREAD = {
    "digits": ("name", "path", "label", "train", "val", "test", "size", "levels"),
    "density": ("path", "label", "train", "val", "test", "levels"),
    "tfds": ("path", "size", "levels"),
    "npz": ("size",),
    "npy": ("size",),
    "hdf5": ("size",),
    "hf": ("size",),
    "csv": ("name", "train", "val", "test", "size", "levels"),
    "parquet": ("name", "train", "val", "test", "size", "levels"),
    "maf": ("label", "train", "val", "test", "size", "levels"),
    "omniglot": ("name", "label", "train", "val", "test", "size", "levels"),
    "image_folder": ("name", "label", "train", "val", "test", "size", "levels"),
    "text": ("name", "label", "train", "val", "test", "levels"),
    "arrays": ("name", "path", "label", "train", "val", "test", "size", "levels"),
}


def make_experiment(
    config: ConfigDict,
    directory: Path | None = None,
    source: data.Source | None = None,
    model: Model | None = None,
    tx: optax.GradientTransformation | None = None,
    held: Mapping[str, Params] = NO_PARAMS,
) -> Experiment:
    """Check every section, load the data, build the model. Every mistake is one UserError; nothing is compiled.

    directory: the workdir. A run that is resumed there needs no other workdir.
    source: the data of this config, where they are loaded already.
    model, tx: of a notebook, where they are made already; the config's sections that describe them are not read then.
    held: {init_from or fixed_from: its parameters}, where a notebook has them.
    """
    resuming = directory is not None and bool(committed_steps(directory / "checkpoints" / "last"))
    config = complete(config)
    check_sections(config)
    config = frozen.resolved(config, directory)
    call(RunConfig, {key: config[key] for key in VALUES}, "config")
    if not resuming:
        warm_start.are_workdirs(config, held)
    training = call(TrainConfig, plain(config.train), "train")
    evaluation = after_training(config)
    optimiser = call(OptimConfig, plain(config.optim), "optim")
    given = tx is not None
    tx = tx or _optimizer(json.dumps(plain(config.optim)), training.steps)
    if model is None:
        models.check_model(config)
    mapping = call(DevicesConfig, plain(config.devices), "devices")
    platform()
    devices = make_devices(mapping)
    if source is None:
        with progress.phase(f"loading data: {data_name(config.data)}"):
            source = data.load(config.data, config.seed)
    config = _of_data(config, source)
    model = model or models.build_model(config)
    devices.slots(config.data.batch)
    if devices.count > 1 and model.one_device:
        raise UserError(f"devices.count={devices.count} is invalid with this model, which trains on one device: {model.one_device}")
    _fits(model, source, config.data)
    if not given:
        _players(model, config)
    if source.val is None and (training.patience or evaluation.params == "best"):
        key = f"train.patience={training.patience}" if training.patience else "eval.params='best'"
        raise UserError(f"{key} needs a validation split, and there is none: set data.val or data.val_fraction")
    no_loss = model.log_prob is None and model.terms is None and evaluation.select == "loss"
    if no_loss and (training.patience or evaluation.params == "best"):
        key = f"train.patience={training.patience}" if training.patience else "eval.params='best'"
        raise UserError(f"{key} needs a validation loss, and model.kind={config.model.kind!r} has no density: set it to 0, or to 'last'")
    experiment = Experiment(config, model, source, devices, training, optimiser, evaluation, tx, held=held)
    with progress.phase("building the model"):
        shapes = jax.eval_shape(model.init, jax.random.key(0), first_batch(experiment))  # shapes that do not fit together
        _accumulates(experiment, shapes)
    fixed = frozenset() if resuming else warm_start.given(shapes, config, held)[1]
    trained = jax.tree.leaves(split_params(shapes, fixed)[0])
    if not trained:
        why = f"model.kind={config.model.kind!r} has none"
        if config.fixed_from:
            why = f"config.fixed_from={config.fixed_from!r} keeps all of them"
        raise UserError(f"there are no parameters to train: {why}")
    if not resuming:  # the first launch has checked them, and it alone knows which parameters fixed_from holds
        jax.eval_shape(tx.init, split_params(shapes, fixed)[0])
    return experiment._replace(parameters=sum(leaf.size for leaf in trained))


@functools.lru_cache(maxsize=16)
def _optimizer(section: str, steps: int) -> optax.GradientTransformation:
    """The optimiser of a section optim as JSON: the same one for the same values, as compiled steps are kept by it."""
    return make_optimizer(call(OptimConfig, json.loads(section), "optim"), steps)


def headline(x: Experiment) -> str:
    """One line of what is trained: data, devices, steps."""
    splits = ", ".join(f"{len(split.x):,} {name}" for name, split in x.source.splits().items())
    event, kind = list(x.source.train.x.shape[1:]), jax.devices()[0].device_kind
    steps = f"{x.parameters:,} parameters; {x.train.steps:,} steps of {x.batch} examples"
    return f"{data_name(x.config.data)}: {splits} examples {event}; {steps} on {x.devices.count} x {kind} ({x.devices.mapping})"


def _accumulates(x: Experiment, params: Params) -> None:
    """UserError: the batch of a device cannot be divided into train.accumulate micro-batches. An `update` that reads the batch (batch
    statistics) needs all of it at once; one that reads the parameters alone (a moving average of them) does not."""
    micro_batches, share, update = x.train.accumulate, x.batch // x.devices.count, x.model.update
    if share % micro_batches:
        raise UserError(f"train.accumulate={micro_batches} does not divide the {share} examples that a device steps on (data.batch)")
    if micro_batches > 1 and update is not None and reads(update, (params, jax.random.key(0), first_batch(x), jnp.zeros((), jnp.int32)), 2):
        raise UserError(f"train.accumulate={micro_batches} is invalid with batch statistics, which are those of a whole batch; set it to 1")


def after_training(config: ConfigDict) -> EvalConfig:
    """The sections that may change after training, checked: eval, and what no model checks in sample."""
    call(SampleConfig, {key: value for key, value in plain(config.sample).items() if key in SampleConfig._fields}, "sample")
    return call(EvalConfig, plain(config.eval), "eval")


def platform() -> None:
    """UserError: jax finds no device of the kind that it is told to use."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # an assertion where a plugin is missing
        words = " ".join(str(error).split()) or "its plugin is not installed (make install ACCEL=...)"
        raise UserError(f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')!r}: jax has no such device: {words}") from error


def _levels(section: Mapping[str, Any], source: data.Source) -> int:
    """The number of grey values as the model gets them; 0: continuous."""
    return 2 if section["binarize"] == "dynamic" else source.levels


def _of_data(config: ConfigDict, source: data.Source) -> ConfigDict:
    """The config with the event and the levels of the data where the model does not name them."""
    found = {"event": tuple(source.train.x.shape[1:]), "levels": _levels(config.data, source)}
    values = config.to_dict()
    for section, name in models.frozen_arguments(config):  # an untrained model of a config row learns the same data
        if is_frozen(group := values[section][name]):
            group["config"] = models.with_data(group["config"], found)
    return ConfigDict(models.with_data(values, found)).lock()


def _fits(model: Model, source: data.Source, section: Mapping[str, Any]) -> None:
    """The data section has no value that goes unread; the model's event and levels are those of the data as the model gets them."""
    for key, value, by in _unread(section):
        name = key.rpartition(".")[2]
        known = ", ".join(kind for kind, unread in _UNREAD.items() if name not in unread)
        off = "leave it empty" if isinstance(value, str) else "set it to 0"
        raise UserError(f"{key}={value!r} is not read by {by}; {off}, or data.kind: {known}")
    event = tuple(source.train.x.shape[1:])
    if model.event is not None and tuple(model.event) != event:
        raise UserError(f"model.event={tuple(model.event)} does not fit the data, whose examples have the shape {event}")
    if model.paired and source.train.x0 is None:
        raise UserError(f"this model maps x0 to x, and data.kind={section['kind']!r} has no x0 here; see data.kind='pair'")
    if section["kind"] == "pair" and not model.paired:
        raise UserError("data.kind='pair' has x0, and this model does not map x0 to x: use the kind of its data.x alone")
    if section["kind"] == "arrays" and source.train.x0 is not None and not model.paired:
        raise UserError("x0: this model does not map x0 to x; leave it out")
    if source.train.mask is not None and not model.masked:
        raise UserError(
            "the data have a mask of missing entries, and this model does not read it: it would learn the filled entries as data"
        )
    for name, split in source.splits().items() if model.classes else ():
        if split.label is None or source.label_names is None:
            raise UserError(f"this model learns labels, and data.kind={section['kind']!r} has none in the split {name!r}")
        if model.classes != len(source.label_names):
            raise UserError(f"model.classes={model.classes} does not fit the data, which have {len(source.label_names)} classes")
        if split.label.min() < 0:
            raise UserError(f"this model learns labels, and the split {name!r} has examples without one (label {split.label.min()})")
    levels = _levels(section, source)
    if model.levels is not None and model.levels != levels:
        free = "levels" not in _UNREAD.get(section["kind"], ("levels",))
        hint = f"; set model.levels={levels}, or data.levels" if free and source.levels else ""
        raise UserError(f"model.levels={model.levels} does not fit the data, which have {levels} levels (0: continuous){hint}")


def _unread(section: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """(key, value, who ignores it) of the options that are set and ignored: in the section, and in the two groups of a pair."""
    groups = {f"data.{name}": group for name in ("x", "x0") if (group := section.get(name))} or {"data": section}
    kinds = {where: f"{where}.kind={group['kind']!r}" for where, group in groups.items()}
    unread = {where: _UNREAD.get(group["kind"], ()) for where, group in groups.items()}
    for where, group in groups.items():
        for key in unread[where]:
            if value := group.get(key):  # a section of before data.levels has no such key
                yield f"{where}.{key}", value, kinds[where]
    for key in dict.fromkeys(key for keys in unread.values() for key in keys):  # what the section says to both groups
        if all(key in keys for keys in unread.values()) and (value := section.get(key)):
            yield f"data.{key}", value, " and ".join(kinds.values())


def first_batch(experiment: Experiment, examples: int = 0) -> Batch:
    """The first rows of the training split, grey values binarized as training would see them: what `init` sees.

    examples: their number; 0: data.batch, whose shapes are enough where nothing is initialised."""
    split, config = experiment.source.train, experiment.config.data
    n = min(examples or config.batch, len(split.x))
    batch = {name: jnp.asarray(np.asarray(a[:n])) for name, a in split.arrays().items()}
    if config.binarize == "dynamic":
        key = rng.first_batch_key(experiment.config.seed)
        batch["x"] = data.binarize_batch(key, batch["x"], experiment.source.levels, jnp.arange(n))
    return batch


def init_shapes(experiment: Experiment, directory: Path | None = None) -> tuple[Params, frozenset, list[str]]:
    """(shapes of the parameters, paths held fixed, lines about other runs) as `init_params` has them; nothing is initialised.

    directory: the workdir. Where it holds a checkpoint of the run, no other workdir is opened, and there are no lines.
    """
    config = experiment.config
    shapes = jax.eval_shape(experiment.model.init, jax.random.key(0), first_batch(experiment))
    if directory is not None and committed_steps(directory / "checkpoints" / "last"):
        return shapes, frozenset(by_path(stored_fixed(directory, to_stderr))), []
    _, held, lines = warm_start.given(shapes, config, experiment.held)
    return shapes, held, [*lines, *frozen.parameters(config)[1]]


def init_params(experiment: Experiment) -> tuple[Params, frozenset, list[str]]:
    """(initial parameters, paths held fixed, lines to print about the runs that some of them were taken from).

    Parameters of other runs are arguments of `init`, so that data-dependent layers see them.
    """
    config, init, homes = experiment.config, experiment.model.init, experiment.devices.homes
    args = (rng.init_key(config.seed), first_batch(experiment, experiment.model.init_examples))
    given, held, lines = warm_start.given(jax.eval_shape(init, *args), config, experiment.held)
    own, more = frozen.parameters(config)
    given = merge_params(given, own)
    places = (None, None, homes(lambda: given))
    params = jax.jit(init, in_shardings=places, out_shardings=homes(init, *args))(*args, given)
    return params, held, [*lines, *more]
